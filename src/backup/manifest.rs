//! The manifest of a backup: what it is of, and of which files it consists.

use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::backup::block::FORMAT;
use crate::backup::error::BackupError;
use crate::merkle::node::Summary;
use crate::types::cursor::Cursor;
use crate::types::hash::{FileHash, NodeHash};
use crate::types::id::{Namespace, ReplicaId};

/// Name of the manifest in a backup's folder.
pub const MANIFEST: &str = "manifest.json";
/// Name of the list of hashes, as `sha256sum` writes and checks it.
pub const SUMS: &str = "SHA256SUMS";
/// Longest manifest that is read, in bytes.
pub const MANIFEST_MAX: u64 = 128 << 20;
/// Data files that one namespace's backup may consist of.
pub const CHAIN_MAX: usize = 64;

/// What a backup is of, and of which files it consists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the layout.
    pub format: u32,
    /// Number of the backup.
    pub backup: u32,
    /// When it was begun, RFC 3339.
    pub time: String,
    /// The replica that it is of.
    #[serde(with = "crate::types::as_text")]
    pub replica: ReplicaId,
    /// Release that wrote it.
    pub samestate: String,
    /// In order of name.
    pub namespaces: Vec<NamespacePart>,
}

/// One namespace of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespacePart {
    /// Its name.
    pub namespace: Namespace,
    /// Where its change feed stood.
    #[serde(with = "crate::types::as_text")]
    pub cursor: Cursor,
    /// Its Merkle root.
    #[serde(with = "crate::types::as_text")]
    pub root: NodeHash,
    /// Records, deleted ones included.
    pub records: u64,
    /// States that are not deleted.
    pub states: u64,
    /// Bytes of the shown versions.
    pub size: u64,
    /// Newest version, in milliseconds since 1970-01-01 UTC.
    pub updated_at: u64,
    /// The backup of which only the changes since were written; none for a full one.
    pub parent: Option<u32>,
    /// The data files that the backup of this namespace consists of, oldest first.
    pub files: Vec<FilePart>,
    /// What this backup added.
    pub written: Written,
}

/// A data file: `NNNNNN/NAMESPACE.data`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePart {
    /// The backup in whose folder it is.
    pub backup: u32,
    /// Its length in bytes.
    pub length: u64,
    /// Its SHA-256.
    #[serde(with = "crate::types::as_text")]
    pub sha256: FileHash,
    /// Where its tables begin.
    pub tables: u64,
}

/// What a backup added to those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Written {
    /// States that are new or changed.
    pub states: u64,
    /// States that are gone.
    pub removed: u64,
    /// Pieces of states.
    pub pieces: u64,
    /// Bytes of the data file.
    pub bytes: u64,
    /// Superseded versions left out because their bytes could not be read any more.
    pub unreadable: u64,
}

impl NamespacePart {
    /// The root with its counts.
    pub fn summary(&self) -> Summary {
        Summary {
            hash: self.root,
            leaves: self.records,
            size: self.size,
            updated_at: self.updated_at,
        }
    }

    /// The file that this backup added, if any.
    pub fn own_file(&self, backup: u32) -> Option<&FilePart> {
        self.files.last().filter(|file| file.backup == backup)
    }
}

impl Manifest {
    /// The manifest as it is written.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Only strings, numbers and lists: this cannot fail.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// The list of hashes that belongs to a manifest with these bytes.
    pub fn sums(&self, bytes: &[u8]) -> String {
        let mut sums = format!("{}  {MANIFEST}\n", FileHash(Sha256::digest(bytes).into()));
        for part in &self.namespaces {
            if let Some(file) = part.own_file(self.backup) {
                sums += &format!("{}  {}\n", file.sha256, data_name(&part.namespace));
            }
        }
        sums
    }

    /// Reads the manifest of backup `number`, found at `path` with `sums` beside it.
    ///
    /// # Errors
    /// [`BackupError`] when it is not what was written, or newer than this build.
    pub fn read(path: &Path, bytes: &[u8], sums: &str, number: u32) -> Result<Self, BackupError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let damaged = |what: String| BackupError::damaged(path, None, what);
        let no_json = |error: serde_json::Error| damaged(error.to_string());
        let Format { format } = serde_json::from_slice(bytes).map_err(no_json)?;
        if format > FORMAT {
            return Err(BackupError::TooNew {
                path: path.to_path_buf(),
                found: format,
                known: FORMAT,
            });
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(no_json)?;
        if manifest.sums(bytes) != sums {
            return Err(damaged(format!("it is not what {SUMS} beside it says")));
        }
        if manifest.backup != number {
            let what = format!("it is the manifest of backup {:06}", manifest.backup);
            return Err(damaged(what));
        }
        manifest.check().map_err(damaged)?;
        Ok(manifest)
    }

    /// A namespace's part.
    pub fn part(&self, namespace: &Namespace) -> Option<&NamespacePart> {
        let mut parts = self.namespaces.iter();
        parts.find(|part| part.namespace == *namespace)
    }

    fn check(&self) -> Result<(), String> {
        let in_order = |pair: &[NamespacePart]| pair[0].namespace < pair[1].namespace;
        if !self.namespaces.windows(2).all(in_order) {
            return Err("the namespaces are out of order".into());
        }
        for part in &self.namespaces {
            let ascends = |pair: &[FilePart]| pair[0].backup < pair[1].backup;
            let newest = part.files.last().map_or(0, |file| file.backup);
            let fits = part.files.windows(2).all(ascends) && newest <= self.backup;
            if !fits || part.files.len() > CHAIN_MAX {
                return Err(format!(
                    "namespace {} lists files that do not belong together",
                    part.namespace
                ));
            }
        }
        Ok(())
    }
}

/// The name of a namespace's data file.
pub fn data_name(namespace: &Namespace) -> String {
    format!("{namespace}.data")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::cursor::Epoch;

    fn file(backup: u32) -> FilePart {
        FilePart {
            backup,
            length: 100,
            sha256: FileHash([backup as u8; 32]),
            tables: 20,
        }
    }

    fn manifest(files: &[u32]) -> Manifest {
        Manifest {
            format: FORMAT,
            backup: 3,
            time: "2026-01-02T03:04:05.678Z".into(),
            replica: ReplicaId(7),
            samestate: "0.1.0".into(),
            namespaces: vec![NamespacePart {
                namespace: Namespace::default_namespace(),
                cursor: Cursor {
                    epoch: Epoch(9),
                    seq: 17,
                },
                root: NodeHash([5; 32]),
                records: 2,
                states: 1,
                size: 10,
                updated_at: 1_700_000_000_000,
                parent: Some(1),
                files: files.iter().map(|backup| file(*backup)).collect(),
                written: Written::default(),
            }],
        }
    }

    fn read(manifest: &Manifest, number: u32) -> Result<Manifest, String> {
        let bytes = manifest.to_bytes();
        let sums = manifest.sums(&bytes);
        let read = Manifest::read(Path::new("m"), &bytes, &sums, number);
        read.map_err(|error| error.to_string())
    }

    #[test]
    fn manifests_round_trip_and_their_sums_are_those_of_sha256sum() {
        let manifest = manifest(&[1, 3]);
        assert_eq!(read(&manifest, 3), Ok(manifest.clone()));
        let sums = manifest.sums(b"x");
        let own = format!("{}  default.data\n", "03".repeat(32));
        assert!(sums.ends_with(&own) && sums.contains("  manifest.json\n"));
        let text = String::from_utf8(manifest.to_bytes()).unwrap();
        assert!(
            text.contains("\"cursor\": \"0000000000000009-17\""),
            "{text}"
        );
    }

    #[test]
    fn whatever_does_not_fit_together_is_named() {
        for (changed, number, told) in [
            (manifest(&[3]), 2, "manifest of backup 000003"),
            (manifest(&[3, 1]), 3, "do not belong together"),
            (manifest(&[4]), 3, "do not belong together"),
            (manifest(&[1, 1]), 3, "do not belong together"),
            (manifest(&(0..65).collect::<Vec<_>>()), 3, "do not belong"),
            (
                Manifest {
                    format: 2,
                    ..manifest(&[])
                },
                3,
                "backup format 2",
            ),
        ] {
            let error = read(&changed, number).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
        let mut twice = manifest(&[]);
        twice.namespaces.push(twice.namespaces[0].clone());
        assert!(read(&twice, 3).unwrap_err().contains("out of order"));
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let manifest = manifest(&[1, 3]);
        let bytes = manifest.to_bytes();
        let sums = manifest.sums(&bytes);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(Manifest::read(Path::new("m"), &changed, &sums, 3).is_err());
        }
        for cut in 0..sums.len() {
            assert!(Manifest::read(Path::new("m"), &bytes, &sums[..cut], 3).is_err());
        }
    }
}
