//! Fetches kernels from Debian's archive by the names of their packages, and installs nothing.
//!
//! apt-get uses its own directories below the cache, so it needs no root and does not touch the system's sources, lists
//! and locks. It can fetch from any Debian suite if the system has one of them among its sources.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use super::command::{find, output};
use super::matrix::Debian;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Returns why this way does not work here, if so.
pub fn unavailable(way: &Debian) -> Option<String> {
    site(way).err().map(|error| format!("{error:#}"))
}

/// Downloads the package and the other packages of its kernel, and unpacks them below `root`.
///
/// # Errors
/// Fails if the archive is unreachable or lacks the package.
pub fn fetch(way: &Debian, apt: &Path, root: &Path) -> Result<Vec<String>> {
    let apt = Apt::new(way, apt)?;
    output(apt.run("apt-get").arg("update"))
        .with_context(|| format!("the lists of {} cannot be had", way.suite))?;
    let packages = kernel_packages(&way.package, |name| {
        output(apt.run("apt-cache").args(["show", "--no-all-versions", name]))
            .with_context(|| format!("{} has no package {name}", way.suite))
    })?;
    let debs = root.join("debs");
    fs::create_dir_all(&debs).with_context(|| debs.display().to_string())?;
    output(apt.run("apt-get").arg("download").args(&packages).current_dir(&debs))
        .with_context(|| format!("cannot download {}", packages.join(", ")))?;
    for entry in fs::read_dir(&debs)? {
        output(Command::new("dpkg-deb").arg("-x").arg(entry?.path()).arg(root))?;
    }
    fs::remove_dir_all(&debs)?;
    Ok(packages)
}

/// An apt with its own directories.
struct Apt {
    dir: PathBuf,
}

impl Apt {
    fn new(way: &Debian, apt: &Path) -> Result<Self> {
        let site = site(way)?;
        let dir = apt.join(&way.suite);
        for sub in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(sub)).with_context(|| dir.display().to_string())?;
        }
        let key = if Path::new(KEYRING).exists() {
            format!("[signed-by={KEYRING}] ")
        } else {
            String::new()
        };
        fs::write(dir.join("sources.list"), format!("deb {key}{site} {} main\n", way.suite))?;
        Ok(Self { dir })
    }

    fn run(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let dir = |sub: &str| self.dir.join(sub).display().to_string();
        for option in [
            format!("Dir::Etc::SourceList={}", dir("sources.list")),
            format!("Dir::State={}", dir("state")),
            format!("Dir::Cache={}", dir("cache")),
            // The system's own sources and pins would mix in other kernels.
            "Dir::Etc::SourceParts=/dev/null".into(),
            "Dir::Etc::Preferences=/dev/null".into(),
            "Dir::Etc::PreferencesParts=/dev/null".into(),
            "Acquire::Languages=none".into(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".into(),
            // A failed update becomes an error instead of a warning. The user _apt cannot write into the cache.
            "APT::Update::Error-Mode=any".into(),
            "APT::Sandbox::User=root".into(),
        ] {
            command.arg("-o").arg(option);
        }
        command.env("LC_ALL", "C");
        command
    }
}

/// Returns the address of Debian's archive for this suite, from the system's own sources.
fn site(way: &Debian) -> Result<String> {
    if find("apt-get").is_none() {
        bail!("{} is a Debian package, and there is no apt-get here", way.package);
    }
    let sites = output(Command::new("apt-get").args(["indextargets", "--format", "$(SITE)"]))?;
    site_of(&sites, &way.suite).ok_or_else(|| {
        anyhow!(
            "{} is a Debian package, and apt has no Debian source for {}",
            way.package,
            way.suite
        )
    })
}

/// Returns the site that has a suite, among the sites that apt knows.
fn site_of(sites: &str, suite: &str) -> Option<String> {
    let end = if suite.ends_with("-security") { "/debian-security" } else { "/debian" };
    let ends = |site: &&str| site.trim_end_matches('/').ends_with(end);
    sites.lines().map(str::trim).find(ends).map(str::to_owned)
}

/// Returns all packages that make up the kernel of this package. The package is a kernel or depends on one. Since 7.0,
/// the image and the modules are separate packages.
fn kernel_packages(package: &str, show: impl Fn(&str) -> Result<String>) -> Result<Vec<String>> {
    let description = show(package)?;
    let versioned = |name: &&str| name.starts_with("linux-image-") && has_version(name);
    let image = if has_version(package) {
        package.to_owned()
    } else {
        let names = depends(&description);
        let image = names.iter().copied().find(versioned);
        image.with_context(|| format!("{package} depends on no linux-image-VERSION"))?.to_owned()
    };
    let version = image.trim_start_matches("linux-image-").to_owned();
    let mut packages = vec![image];
    let mut next = 0;
    while let Some(package) = packages.get(next).cloned() {
        for name in depends(&show(&package)?) {
            let ours = name.starts_with("linux-") && name.ends_with(&version);
            if ours && !packages.iter().any(|known| known == name) {
                packages.push(name.to_owned());
            }
        }
        next += 1;
    }
    Ok(packages)
}

/// Tells whether a package has one fixed kernel version. `linux-image-6.12-cloud-amd64` does not, because it depends on
/// the newest 6.12.
fn has_version(package: &str) -> bool {
    let version = package.trim_start_matches("linux-image-");
    version.split('.').take_while(|part| part.starts_with(|c: char| c.is_ascii_digit())).count()
        >= 3
}

/// Returns the names in a description's `Depends`, with the first name of each choice.
fn depends(description: &str) -> Vec<&str> {
    let line = description.lines().find_map(|line| line.strip_prefix("Depends:")).unwrap_or("");
    line.split(',').filter_map(|choice| choice.split_whitespace().next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::unnecessary_wraps)] // In place of a command, which can fail.
    fn show(name: &str) -> Result<String> {
        let depends = match name {
            "linux-image-cloud-amd64" => {
                "linux-base-cloud-amd64 (= 7.3.4-1), linux-image-7.3.4+deb13-cloud-amd64 (= 7.3.4-1)"
            }
            "linux-image-7.3.4+deb13-cloud-amd64" => {
                "dracut | initramfs-tools, linux-base-7.3.4+deb13-cloud-amd64, \
                 linux-binary-7.3.4+deb13-cloud-amd64 (= 7.3.4-1), linux-modules-7.3.4+deb13-cloud-amd64"
            }
            "linux-modules-7.3.4+deb13-cloud-amd64" => "kmod, linux-base-7.3.4+deb13-cloud-amd64",
            "linux-image-6.12-cloud-amd64" => {
                "linux-image-6.12.117+deb12-cloud-amd64 (= 6.12.117-1)"
            }
            "linux-image-6.12.117+deb12-cloud-amd64" => "kmod, linux-base (>= 4.3~)",
            "linux-image-none" => "kmod",
            _ => return Ok(format!("Package: {name}\n")),
        };
        Ok(format!("Package: {name}\nDepends: {depends}\nDescription: x\n"))
    }

    #[test]
    fn a_kernel_in_several_packages_is_found_whole() {
        let of = |part: &str| format!("linux-{part}-7.3.4+deb13-cloud-amd64");
        let packages = kernel_packages("linux-image-cloud-amd64", show).unwrap();
        assert_eq!(packages, ["image", "base", "binary", "modules"].map(of));
    }

    #[test]
    fn a_kernel_in_one_package_is_that_package() {
        let image = ["linux-image-6.12.117+deb12-cloud-amd64"];
        assert_eq!(kernel_packages("linux-image-6.12-cloud-amd64", show).unwrap(), image);
        assert_eq!(kernel_packages(image[0], show).unwrap(), image);
        assert!(kernel_packages("linux-image-none", show).is_err());
    }

    #[test]
    fn a_suite_is_looked_for_where_it_is_kept() {
        let sites =
            "https://x.example/node\nhttp://m.example/debian\nhttp://m.example/debian-security/\n";
        assert_eq!(site_of(sites, "trixie-backports").unwrap(), "http://m.example/debian");
        assert_eq!(
            site_of(sites, "bookworm-security").unwrap(),
            "http://m.example/debian-security/"
        );
        assert_eq!(site_of("http://u.example/ubuntu\n", "bookworm-security"), None);
    }
}
