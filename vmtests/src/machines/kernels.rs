//! Caches kernels. Each kernel has a directory laid out as virtme-ng expects (`boot/vmlinuz-RELEASE`,
//! `lib/modules/RELEASE`), with a note that names its source.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::apt;
use super::command::{find, output};
use super::matrix::{Kernel, Mainline, Way};

/// A kernel that can be booted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bootable {
    /// The image to pass to `vng --run`.
    pub run: PathBuf,
    /// The source, as text.
    pub from: String,
    /// The way that fetched the kernel.
    pub way: Way,
}

/// The result of looking for a kernel.
#[derive(Debug)]
pub enum Found {
    /// The kernel can be booted.
    Here(Bootable),
    /// This system supports no way to get the kernel.
    NotHere(String),
}

/// The cache of kernels.
#[derive(Debug)]
pub struct Cache {
    /// The directory of the cache.
    pub dir: PathBuf,
    /// The path of virtme-ng, which fetches mainline kernels.
    pub vng: PathBuf,
    /// Whether to fetch cached kernels again.
    pub refresh: bool,
}

impl Cache {
    /// Finds a kernel in the cache, or fetches it.
    ///
    /// # Errors
    /// Fails if this system supports a way and that way fails.
    pub fn get(&self, kernel: &Kernel, say: impl Fn(&str)) -> Result<Found> {
        let mut reasons = Vec::new();
        for way in &kernel.get {
            if let Some(reason) = unavailable(way) {
                reasons.push(reason);
                continue;
            }
            let got = match way {
                Way::Debian(_) | Way::Mainline(_) => self.cached(kernel, way).map_or_else(
                    || {
                        say(&format!("fetching {way}"));
                        self.fetch(kernel, way)
                    },
                    Ok,
                ),
                Way::Image(image) => Ok(Bootable {
                    run: image.image.clone(),
                    from: image.image.display().to_string(),
                    way: way.clone(),
                }),
            };
            return got.map(Found::Here).with_context(|| format!("kernel {}", kernel.name));
        }
        Ok(Found::NotHere(reasons.join("; ")))
    }

    /// Lets virtme-ng unpack a kernel, and moves it into this cache. virtme-ng's own cache lies in root's home here. It
    /// would also mistake the rest of a broken download for a kernel.
    fn mainline(&self, mainline: &Mainline, new: &Path) -> Result<()> {
        let version = &mainline.version;
        let home = new.join("home");
        fs::create_dir_all(&home)?;
        output(Command::new(&self.vng).env("HOME", &home).args([
            "--dry-run",
            "--run",
            version,
            "--",
            "true",
        ]))
        .with_context(|| format!("mainline {version} cannot be had"))?;
        let unpacked = home.join(".cache/virtme-ng").join(version);
        let architecture = fs::read_dir(&unpacked)
            .and_then(|mut dirs| dirs.next().transpose())
            .with_context(|| unpacked.display().to_string())?
            .with_context(|| format!("virtme-ng has left nothing in {}", unpacked.display()))?;
        for part in ["boot", "lib", "usr"] {
            let from = architecture.path().join(part);
            if from.is_dir() {
                fs::rename(&from, new.join(part)).with_context(|| from.display().to_string())?;
            }
        }
        remove(&home)
    }

    /// Describes a kernel's state in the cache, without fetching anything.
    pub fn state(&self, kernel: &Kernel) -> String {
        let known = kernel.get.iter().find(|way| unavailable(way).is_none());
        match known {
            None => {
                let reasons: Vec<_> = kernel.get.iter().filter_map(unavailable).collect();
                format!("not available here: {}", reasons.join("; "))
            }
            Some(way) => match self.cached(kernel, way) {
                Some(bootable) => format!("here, {}", bootable.from),
                None => format!("would be {way}"),
            },
        }
    }

    /// Returns the cached kernel, unless the matrix names another way to get it now.
    fn cached(&self, kernel: &Kernel, way: &Way) -> Option<Bootable> {
        let note = fs::read_to_string(self.dir.join(&kernel.name).join(NOTE)).ok()?;
        let bootable: Bootable = serde_json::from_str(&note).ok()?;
        (!self.refresh && bootable.way == *way && bootable.run.is_file()).then_some(bootable)
    }

    fn fetch(&self, kernel: &Kernel, way: &Way) -> Result<Bootable> {
        // A rename at the end makes sure that nobody finds a half unpacked kernel.
        let (home, new) =
            (self.dir.join(&kernel.name), self.dir.join(format!("{}.new", kernel.name)));
        remove(&new)?;
        fs::create_dir_all(&new).with_context(|| new.display().to_string())?;
        let from = match way {
            Way::Debian(debian) => {
                let packages = apt::fetch(debian, &self.dir.join("apt"), &new)?;
                format!("{} ({})", packages[0], debian.suite)
            }
            Way::Mainline(mainline) => {
                self.mainline(mainline, &new)?;
                way.to_string()
            }
            Way::Image(_) => bail!("an image is not fetched"),
        };
        let release = arrange(&new)?;
        if !kernel.is_release(&release) {
            bail!("{from} is {release}, and the matrix wants {}", kernel.wanted());
        }
        output(Command::new(depmod()).arg("-b").arg(&new).arg(&release))?;
        let bootable = Bootable {
            run: home.join("boot").join(format!("vmlinuz-{release}")),
            from,
            way: way.clone(),
        };
        fs::write(new.join(NOTE), serde_json::to_string(&bootable)?)?;
        remove(&home)?;
        fs::rename(&new, &home).with_context(|| home.display().to_string())?;
        Ok(bootable)
    }
}

const NOTE: &str = "kernel.json";

/// Returns why this system does not support a way, if so.
fn unavailable(way: &Way) -> Option<String> {
    match way {
        Way::Debian(debian) => apt::unavailable(debian),
        Way::Mainline(mainline) => find("dpkg").is_none().then(|| {
            format!("mainline {} is unpacked by dpkg, which is not here", mainline.version)
        }),
        Way::Image(image) => (!image.image.is_file())
            .then(|| format!("{} is not a file here", image.image.display())),
    }
}

/// Returns the path of depmod. It is in sbin, which is not on an ordinary user's PATH.
fn depmod() -> PathBuf {
    let sbin = Path::new("/usr/sbin/depmod");
    if sbin.exists() { sbin.to_owned() } else { PathBuf::from("depmod") }
}

/// Moves the parts of an unpacked kernel to where virtme-ng looks for them. Returns the kernel's release.
fn arrange(root: &Path) -> Result<String> {
    let (modules, usr) = (root.join("lib/modules"), root.join("usr/lib/modules"));
    if usr.is_dir() && !modules.exists() {
        fs::create_dir_all(root.join("lib"))?;
        fs::rename(&usr, &modules)?;
    }
    let mut releases = fs::read_dir(&modules)
        .with_context(|| format!("no modules in {}", root.display()))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<_>>>()?;
    let (Some(release), true) = (releases.pop(), releases.is_empty()) else {
        bail!("not the modules of one kernel in {}", modules.display());
    };
    let image = root.join("boot").join(format!("vmlinuz-{release}"));
    let beside = modules.join(&release).join("vmlinuz");
    if !image.is_file() && beside.is_file() {
        fs::create_dir_all(root.join("boot"))?;
        fs::rename(&beside, &image)?;
    }
    if !image.is_file() {
        bail!("no image of {release} in {}", root.display());
    }
    // This is half of what was unpacked: documentation that nobody reads here.
    remove(&root.join("usr"))?;
    Ok(release)
}

/// Removes a directory if it exists.
fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| dir.display().to_string())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::machines::matrix::{Image, Matrix};

    fn cache(dir: &Path, refresh: bool) -> Cache {
        Cache { dir: dir.to_owned(), vng: PathBuf::from("false"), refresh }
    }

    fn put(root: &Path, file: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    #[test]
    fn both_layouts_of_a_package_become_one() {
        for files in [
            ["boot/vmlinuz-6.1.0", "lib/modules/6.1.0/modules.order"],
            ["usr/lib/modules/6.1.0/vmlinuz", "usr/lib/modules/6.1.0/modules.order"],
        ] {
            let root = tempfile::tempdir().unwrap();
            for file in files {
                put(root.path(), file);
            }
            assert_eq!(arrange(root.path()).unwrap(), "6.1.0");
            assert!(root.path().join("boot/vmlinuz-6.1.0").is_file());
            assert!(root.path().join("lib/modules/6.1.0/modules.order").is_file());
        }
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        let root = tempfile::tempdir().unwrap();
        assert!(arrange(root.path()).is_err());
        put(root.path(), "lib/modules/6.1.0/modules.order");
        assert!(arrange(root.path()).unwrap_err().to_string().contains("no image"));
        put(root.path(), "lib/modules/6.2.0/modules.order");
        assert!(arrange(root.path()).is_err());
    }

    #[test]
    fn a_kernel_without_a_way_is_not_here_and_says_why() {
        let matrix = "[limits]\nboot = 1\nrun = 1\n[[kernel]]\nname = \"a\"\nrelease = \"6.\"\n\
             get = [{ image = \"/nonexistent/vmlinuz\" }]\n\
             expect = { links = true, program_flags = true, \
             expected_revision = true, tcp = true }";
        let kernel = &Matrix::parse(matrix).unwrap().kernels[0];
        let cache = cache(Path::new("/nonexistent"), false);
        let Found::NotHere(why) = cache.get(kernel, |_| {}).unwrap() else { panic!() };
        assert_eq!(why, "/nonexistent/vmlinuz is not a file here");
    }

    fn mainline_6_6() -> Kernel {
        let text = fs::read_to_string(crate::machines::matrix::FILE).unwrap();
        Matrix::parse(&text).unwrap().select(&["6.6".into()]).unwrap()[0].clone()
    }

    #[test]
    fn a_mainline_kernel_that_cannot_be_fetched_is_an_error_and_not_a_guess() {
        let dir = tempfile::tempdir().unwrap();
        let error = cache(dir.path(), false).get(&mainline_6_6(), |_| {}).unwrap_err();
        assert!(
            format!("{error:#}").contains("kernel 6.6: mainline v6.6 cannot be had"),
            "{error:#}"
        );
    }

    /// A stand-in for virtme-ng leaves the same files as the real one, but downloads nothing.
    #[test]
    fn a_mainline_kernel_is_fetched_once_and_kept_with_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let vng = dir.path().join("vng");
        let script = "#!/bin/sh
cd \"$HOME\" && mkdir -p .cache/virtme-ng/$3/amd64 && cd .cache/virtme-ng/$3/amd64 &&
mkdir -p boot lib/modules/6.6.0-generic && echo >linux-image.deb && echo >boot/vmlinuz-6.6.0-generic &&
echo >lib/modules/6.6.0-generic/modules.order && echo >lib/modules/6.6.0-generic/modules.builtin
";
        fs::write(&vng, script).unwrap();
        fs::set_permissions(&vng, fs::Permissions::from_mode(0o755)).unwrap();
        let kernels = dir.path().join("kernels");
        let cache = |vng| Cache { dir: kernels.clone(), vng, refresh: false };
        let Found::Here(here) = cache(vng).get(&mainline_6_6(), |_| {}).unwrap() else { panic!() };
        assert_eq!(here.run, kernels.join("6.6/boot/vmlinuz-6.6.0-generic"));
        assert!(here.run.is_file() && here.from == "mainline v6.6");
        assert!(kernels.join("6.6/lib/modules/6.6.0-generic/modules.dep").is_file());
        assert!(!kernels.join("6.6/home").exists(), "the packages are kept");
        // A cached kernel works even if it cannot be fetched any more.
        let again = cache("false".into()).get(&mainline_6_6(), |_| {}).unwrap();
        assert!(matches!(again, Found::Here(it) if it == here));
    }

    #[test]
    fn the_cache_answers_only_for_the_way_that_the_matrix_names() {
        let dir = tempfile::tempdir().unwrap();
        let cache = |refresh| cache(dir.path(), refresh);
        let way = Way::Image(Image { image: "x".into() });
        put(dir.path(), "a/boot/vmlinuz-6.1.0");
        let here = Bootable {
            run: dir.path().join("a/boot/vmlinuz-6.1.0"),
            from: String::new(),
            way: way.clone(),
        };
        fs::write(dir.path().join("a").join(NOTE), serde_json::to_string(&here).unwrap()).unwrap();
        let text = fs::read_to_string(crate::machines::matrix::FILE).unwrap();
        let kernel =
            Kernel { name: "a".into(), ..Matrix::parse(&text).unwrap().kernels[0].clone() };
        assert_eq!(cache(false).cached(&kernel, &way), Some(here));
        assert_eq!(cache(true).cached(&kernel, &way), None);
        assert_eq!(cache(false).cached(&kernel, &Way::Image(Image { image: "y".into() })), None);
    }
}
