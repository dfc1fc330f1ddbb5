//! Models a process's table of open cgroups. Like the kernel, it assigns the lowest free number. So a closed number
//! soon refers to another cgroup.

use sim::ModelCgroup;

/// The table of open cgroups.
#[derive(Debug, Default)]
pub(super) struct Descriptors {
    open: Vec<Option<ModelCgroup>>,
}

impl Descriptors {
    pub(super) fn open(&mut self, cgroup: ModelCgroup) -> usize {
        let free = self.open.iter().position(Option::is_none);
        let number = free.unwrap_or(self.open.len());
        if number == self.open.len() {
            self.open.push(None);
        }
        self.open[number] = Some(cgroup);
        number
    }

    pub(super) fn close(&mut self, number: usize) {
        if let Some(slot) = self.open.get_mut(number) {
            *slot = None;
        }
    }

    /// Returns the cgroup that a number refers to now.
    pub(super) fn get(&self, number: usize) -> Result<&ModelCgroup, String> {
        let open = self.open.get(number).and_then(Option::as_ref);
        open.ok_or_else(|| format!("descriptor {number}: EBADF"))
    }
}
