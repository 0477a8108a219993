//! Noticing at open that a data directory is a copy, or that an older copy was put back.
//!
//! `DIR/place` is made anew at each start and says which file it is itself (inode and time of
//! birth), so a copy of it, or one that was written over, does not fit. For each namespace it names
//! the opening that its file had last; an older file lacks it.
//!
//! A snapshot of a whole file system fits. Peers notice that one, see `types/lineage.rs`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::clock::unix_nanos;
use crate::store::draft::finish_draft;
use crate::types::id::{Namespace, ReplicaId};
use crate::types::lineage::OPENINGS_KEPT;

/// Longest file that is read.
const BYTES_MAX: u64 = 1 << 20;

/// What `DIR/place` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// Replica ids of the directory, the newest one last.
    pub names: Vec<ReplicaId>,
    /// The opening that each namespace's file had last.
    pub openings: BTreeMap<Namespace, u64>,
}

/// What was found of a directory's place.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// A new directory, or one from before there was the file: nothing to compare.
    Nothing,
    /// It is where it was.
    Same(Place),
    /// It was copied, put back or moved between file systems.
    Elsewhere(Place),
}

impl Place {
    /// Reads `DIR/place`.
    ///
    /// # Errors
    /// The operating system's, when it cannot be read.
    pub fn find(root: &Path) -> io::Result<Found> {
        let path = root.join("place");
        let read = || -> io::Result<(String, String)> {
            let file = File::open(&path)?;
            let metadata = file.metadata()?;
            if metadata.len() > BYTES_MAX {
                return Ok((String::new(), fingerprint(&metadata)));
            }
            let text = fs::read(&path)?;
            let text = String::from_utf8_lossy(&text).into_owned();
            Ok((text, fingerprint(&metadata)))
        };
        match read() {
            Ok((text, here)) => {
                let (place, was) = Self::parse(&text);
                Ok(if was == Some(here.as_str()) {
                    Found::Same(place)
                } else {
                    Found::Elsewhere(place)
                })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
            Err(error) => Err(error),
        }
    }

    /// Lines that mean nothing are passed over: what is lacking then counts as not known.
    fn parse(text: &str) -> (Self, Option<&str>) {
        let (mut place, mut here) = (Self::default(), None);
        for line in text.lines() {
            match line.split_once(' ') {
                Some(("file", fingerprint)) => here = Some(fingerprint),
                Some(("replica", id)) => place.names.extend(id.parse::<ReplicaId>()),
                Some(("opening", rest)) => {
                    let (id, name) = rest.split_once(' ').unwrap_or_default();
                    let id = u64::from_str_radix(id, 16);
                    if let (Ok(id), Ok(name)) = (id, Namespace::new(name)) {
                        place.openings.insert(name, id);
                    }
                }
                _ => {}
            }
        }
        (place, here)
    }

    /// Adds the replica id that the directory has now.
    pub fn take_name(&mut self, name: ReplicaId) {
        self.names.retain(|known| *known != name);
        self.names.push(name);
        let surplus = self.names.len().saturating_sub(OPENINGS_KEPT);
        self.names.drain(..surplus);
    }

    /// Makes `DIR/place` anew; durable when it returns.
    ///
    /// # Errors
    /// The operating system's, when it cannot be written.
    pub fn write(&self, root: &Path) -> io::Result<()> {
        let path = root.join("place");
        let draft = path.with_extension("new");
        // Not written over: a new file is a new place.
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = File::create_new(&draft)?;
        let text = self.to_text(&fingerprint(&file.metadata()?));
        finish_draft(file, &text, &draft, &path)
    }

    fn to_text(&self, fingerprint: &str) -> String {
        let mut text = format!("file {fingerprint}\n");
        for name in &self.names {
            // Writing to a text cannot fail.
            let _ = writeln!(text, "replica {name}");
        }
        for (name, opening) in &self.openings {
            let _ = writeln!(text, "opening {opening:016x} {name}");
        }
        text
    }
}

/// Tells a file from its copies. Device numbers may change when a machine starts, so they count
/// only where the file system does not say when a file was made.
fn fingerprint(metadata: &Metadata) -> String {
    let inode = metadata.ino();
    match metadata.created().ok().and_then(unix_nanos) {
        Some(made) => format!("inode {inode} made {made}"),
        None => format!("inode {inode} device {}", metadata.dev()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            names: vec![ReplicaId(1), ReplicaId(2)],
            openings: BTreeMap::from([(Namespace::default_namespace(), 77)]),
        }
    }

    #[test]
    fn a_place_is_known_again_and_a_copy_of_it_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (here, there) = (folder.path().join("here"), folder.path().join("there"));
        for root in [&here, &there] {
            fs::create_dir(root).unwrap();
        }
        assert_eq!(Place::find(&here).unwrap(), Found::Nothing);
        place().write(&here).unwrap();
        assert_eq!(Place::find(&here).unwrap(), Found::Same(place()));
        let moved = folder.path().join("moved");
        fs::rename(&here, &moved).unwrap();
        assert_eq!(Place::find(&moved).unwrap(), Found::Same(place()));
        fs::copy(moved.join("place"), there.join("place")).unwrap();
        assert_eq!(Place::find(&there).unwrap(), Found::Elsewhere(place()));
    }

    #[test]
    fn an_older_copy_written_over_the_file_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("place");
        place().write(folder.path()).unwrap();
        let older = fs::read(&path).unwrap();
        place().write(folder.path()).unwrap();
        fs::write(&path, older).unwrap();
        let found = Place::find(folder.path()).unwrap();
        assert_eq!(found, Found::Elsewhere(place()));
        fs::write(&path, [0xff; 300]).unwrap();
        let found = Place::find(folder.path()).unwrap();
        assert_eq!(found, Found::Elsewhere(Place::default()));
    }
}
