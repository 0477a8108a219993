//! Which disk the figures belong to, and how long it takes to make a write durable.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cli::bench::measure::median;
use crate::cli::error::{CliError, file_error};
use crate::cli::text::printable;

/// Where Linux says what is mounted where (proc_pid_mountinfo(5)).
const MOUNTS: &str = "/proc/self/mountinfo";
/// File systems that keep their files in memory.
const IN_MEMORY: [&str; 2] = ["tmpfs", "ramfs"];
/// Bytes of a write that is timed.
const BLOCK: usize = 4096;
/// How often it is timed, at most.
const WRITES: u64 = 50;
/// Slow disks are asked less often.
const TIME_MAX: Duration = Duration::from_secs(2);

/// The disk under a folder.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Disk {
    /// Its type, for example `ext4`; none where the system does not tell.
    pub file_system: Option<String>,
    /// The device, or whatever else is mounted.
    pub device: Option<String>,
    /// True when the files are in memory, so that figures say nothing about durable writes.
    pub in_memory: bool,
    /// Median time of a 4 KiB write with fdatasync, in milliseconds.
    pub sync_ms: f64,
}

impl Disk {
    /// Looks at the disk that an existing folder is on, and times it.
    ///
    /// # Errors
    /// [`CliError::File`] when the folder cannot be written to.
    pub fn under(folder: &Path) -> Result<Self, CliError> {
        let path = fs::canonicalize(folder).map_err(file_error("find", folder))?;
        let mounts = fs::read_to_string(MOUNTS).unwrap_or_default();
        let (file_system, device) = mount_of(&mounts, &path).unzip();
        let probe = folder.join("sync-probe");
        let sync_ms = sync_ms(&probe).map_err(file_error("write", &probe))?;
        Ok(Self {
            in_memory: file_system
                .as_ref()
                .is_some_and(|kind| IN_MEMORY.contains(&kind.as_str())),
            file_system,
            device,
            sync_ms,
        })
    }

    /// One line about it.
    pub fn in_words(&self) -> String {
        let unknown = "a file system that the system does not name";
        let kind = self.file_system.as_deref().unwrap_or(unknown);
        let device = self.device.as_deref();
        let device = device.map_or_else(String::new, |device| format!(" on {device}"));
        let place = format!("{kind}{device}");
        let sync_ms = self.sync_ms;
        format!(
            "{}; a 4 KiB write with fdatasync takes {sync_ms:.2} ms",
            printable(&place)
        )
    }
}

/// File system and device that a path is on.
fn mount_of(mounts: &str, path: &Path) -> Option<(String, String)> {
    let mut best: Option<(usize, (String, String))> = None;
    for line in mounts.lines() {
        // 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
        let Some((place, device)) = line.split_once(" - ") else {
            continue;
        };
        let point = place.split(' ').nth(4).map(unescaped).unwrap_or_default();
        let mut device = device.split(' ');
        let (Some(kind), Some(source)) = (device.next(), device.next()) else {
            continue;
        };
        let depth = point.components().count();
        // What is mounted later over the same place hides what was there.
        if path.starts_with(&point) && best.as_ref().is_none_or(|(deepest, _)| depth >= *deepest) {
            best = Some((depth, (kind.to_owned(), source.to_owned())));
        }
    }
    best.map(|(_, mount)| mount)
}

/// Blanks in paths are written as `\040` there.
fn unescaped(text: &str) -> PathBuf {
    let text = text.replace("\\040", " ").replace("\\011", "\t");
    PathBuf::from(text.replace("\\012", "\n").replace("\\134", "\\"))
}

/// Median time of a 4 KiB overwrite with fdatasync, in milliseconds.
fn sync_ms(path: &Path) -> io::Result<f64> {
    let options = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .clone();
    let file: File = options.open(path)?;
    let block = [0x5a; BLOCK];
    // The first pass makes the file as long as it will be.
    for number in 0..WRITES {
        file.write_all_at(&block, number * BLOCK as u64)?;
    }
    file.sync_all()?;
    let started = Instant::now();
    let mut times = Vec::new();
    for number in 0..WRITES {
        let began = Instant::now();
        file.write_all_at(&block, number * BLOCK as u64)?;
        file.sync_data()?;
        times.push(began.elapsed().as_secs_f64() * 1000.0);
        if started.elapsed() > TIME_MAX {
            break;
        }
    }
    fs::remove_file(path)?;
    Ok(median(times).unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_on_what_is_mounted_deepest_above_it() {
        let mounts = "\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
23 22 0:21 / /run rw shared:5 - tmpfs tmpfs rw,size=1k
24 22 8:1 / /mnt/big\\040disk rw shared:6 master:7 - xfs /dev/sdb1 rw
25 23 8:2 / /run rw - btrfs /dev/sdc rw
half a line
";
        let of = |path: &str| mount_of(mounts, Path::new(path)).unwrap();
        let mount = |kind: &str, device: &str| (kind.to_owned(), device.to_owned());
        assert_eq!(of("/srv/x"), mount("ext4", "/dev/vda"));
        assert_eq!(of("/mnt/big disk/x"), mount("xfs", "/dev/sdb1"));
        assert_eq!(of("/mnt/big"), mount("ext4", "/dev/vda"));
        assert_eq!(of("/run/x"), mount("btrfs", "/dev/sdc"));
        assert_eq!(mount_of("", Path::new("/x")), None);
    }

    #[test]
    fn the_disk_is_timed_and_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::under(folder.path()).unwrap();
        assert!(disk.sync_ms > 0.0);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(Disk::under(&folder.path().join("missing")).is_err());
    }

    #[test]
    fn memory_is_told_from_a_disk() {
        let disk = Disk {
            file_system: None,
            device: None,
            in_memory: false,
            sync_ms: 1.234,
        };
        assert!(disk.in_words().contains("does not name; a 4 KiB write"));
        assert!(IN_MEMORY.contains(&"tmpfs"));
    }
}
