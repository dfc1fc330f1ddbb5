//! Stores earlier results of the benches as ratios to a peer in the same run. Times depend on the machine, but ratios
//! depend on the code.
//!
//! The file is `baseline.json`. `BENCH_BASELINE=save cargo bench -p chadthrottle-benches` rewrites it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use comfy_table::Table;

use crate::table::table;
use crate::turns::Figure;

/// A ratio above the baseline's by this factor fails the bench.
const TOLERANCE: f64 = 1.5;

/// The path of the baseline in the sources of this build.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/baseline.json");

/// The ratios, by bench and by name.
type Ratios = BTreeMap<String, BTreeMap<String, f64>>;

/// One of our figures relative to a peer of the same run.
#[derive(Debug, Clone, PartialEq)]
pub struct Ratio {
    /// The name of our contestant.
    pub name: String,
    /// The name of the peer.
    pub peer: String,
    /// Our time divided by the peer's.
    pub value: f64,
}

impl Ratio {
    /// Compares two figures of one run.
    pub fn of(own: &Figure, peer: &Figure) -> Self {
        Self { name: own.name.clone(), peer: peer.name.clone(), value: own.ratio_to(peer) }
    }
}

/// The baseline file, and whether to save to it.
#[derive(Debug)]
pub(crate) struct Baseline {
    file: PathBuf,
    save: bool,
}

impl Baseline {
    /// Reads `BENCH_BASELINE`, which is `save` or unset.
    pub(crate) fn from_env() -> anyhow::Result<Self> {
        let save = match std::env::var_os("BENCH_BASELINE") {
            None => false,
            Some(word) if word == "save" => true,
            Some(word) => bail!("BENCH_BASELINE is {}: it may be 'save'", word.display()),
        };
        Ok(Self { file: FILE.into(), save })
    }

    pub(crate) fn settle(&self, bench: &str, ratios: &[Ratio]) -> anyhow::Result<()> {
        let mut all = read(&self.file)?;
        if self.save {
            save(&mut all, bench, ratios);
            let text = serde_json::to_string_pretty(&all)? + "\n";
            std::fs::write(&self.file, text).with_context(|| self.file.display().to_string())?;
            eprintln!("{bench}: the ratios were saved as the baseline");
            return Ok(());
        }
        let none = BTreeMap::new();
        let before = all.get(bench).unwrap_or(&none);
        println!("{}\n", shown(before, ratios));
        let worse = misses(before, ratios);
        ensure!(worse.is_empty(), "beside the baseline:\n  {}", worse.join("\n  "));
        Ok(())
    }
}

/// Reads the file. A missing file counts as empty.
fn read(file: &Path) -> anyhow::Result<Ratios> {
    let name = || file.display().to_string();
    match std::fs::read(file) {
        Ok(text) => serde_json::from_slice(&text).with_context(name),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Ratios::new()),
        Err(error) => Err(error).with_context(name),
    }
}

/// Saves the ratios with three decimal places, because more is noise. It drops ratios that the bench no longer
/// measures.
fn save(all: &mut Ratios, bench: &str, ratios: &[Ratio]) {
    let rounded = |value: f64| (value * 1_000.0).round() / 1_000.0;
    let ratios = ratios.iter().map(|ratio| (ratio.name.clone(), rounded(ratio.value)));
    all.insert(bench.to_owned(), ratios.collect());
}

/// Describes the ratios that are far above the baseline or have none.
fn misses(before: &BTreeMap<String, f64>, ratios: &[Ratio]) -> Vec<String> {
    let miss = |ratio: &Ratio| {
        let Ratio { name, peer, value } = ratio;
        match before.get(name) {
            None => Some(format!("{name}: not in it (BENCH_BASELINE=save)")),
            // NaN compares with nothing, so it counts as a miss.
            Some(&was) if *value <= was * TOLERANCE => None,
            Some(was) => Some(format!(
                "{name}: {value:.2} times {peer}; it was {was:.2}, and {TOLERANCE} times that is too much"
            )),
        }
    };
    ratios.iter().filter_map(miss).collect()
}

fn shown(before: &BTreeMap<String, f64>, ratios: &[Ratio]) -> Table {
    table(
        ["ratio of", "to", "now", "baseline", "change"],
        2,
        ratios.iter().map(|ratio| {
            let was = before.get(&ratio.name);
            let change = was.map(|was| format!("{:+.0} %", (ratio.value / was - 1.0) * 100.0));
            [
                ratio.name.clone(),
                ratio.peer.clone(),
                format!("{:.2}", ratio.value),
                was.map_or_else(|| "none".to_owned(), |was| format!("{was:.2}")),
                change.unwrap_or_default(),
            ]
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(value: f64) -> Ratio {
        Ratio { name: "ours".to_owned(), peer: "theirs".to_owned(), value }
    }

    fn before(value: f64) -> BTreeMap<String, f64> {
        BTreeMap::from([("ours".to_owned(), value)])
    }

    #[test]
    fn far_worse_is_told_and_a_little_worse_is_not() {
        assert_eq!(misses(&before(2.0), &[ratio(2.9)]), Vec::<String>::new());
        let worse = misses(&before(2.0), &[ratio(3.1)]);
        let expected = "ours: 3.10 times theirs; it was 2.00, and 1.5 times that is too much";
        assert_eq!(worse, [expected]);
    }

    #[test]
    fn what_has_no_baseline_or_no_value_is_a_miss() {
        assert_eq!(misses(&BTreeMap::new(), &[ratio(1.0)]).len(), 1);
        assert_eq!(misses(&before(2.0), &[ratio(f64::NAN)]).len(), 1);
    }

    #[test]
    fn saving_one_bench_leaves_the_others() {
        let mut all = Ratios::from([
            ("this".to_owned(), BTreeMap::from([("old".to_owned(), 1.0)])),
            ("other".to_owned(), before(3.0)),
        ]);
        save(&mut all, "this", &[ratio(1.234_56)]);
        assert_eq!(all["this"], before(1.235));
        assert_eq!(all["other"], before(3.0));
    }

    #[test]
    fn the_table_shows_the_change() {
        let shown = shown(&before(2.0), &[ratio(2.2)]).to_string();
        assert!(shown.lines().last().unwrap().contains("+10 %"), "{shown}");
    }

    #[test]
    fn a_file_that_is_none_is_an_error_and_no_file_is_empty() {
        assert_eq!(read(Path::new("/proc/no such file")).unwrap(), Ratios::new());
        assert!(read(Path::new("/proc/self/status")).is_err());
    }

    #[test]
    fn the_baseline_in_the_sources_can_be_read() {
        read(Path::new(FILE)).unwrap();
    }
}
