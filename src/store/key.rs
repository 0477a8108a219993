//! `DIR/key`: the Ed25519 key that a replica signs with, and the replica id that it belongs to.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::roots::head::SecretKey;
use crate::store::draft::finish_draft;
use crate::types::hash::{FileHash, hex};
use crate::types::id::ReplicaId;

/// Longest file that is read.
const BYTES_MAX: u64 = 4096;

/// What became of a directory's key.
#[derive(Debug)]
pub struct Found {
    /// The key.
    pub key: SecretKey,
    /// True when it was made just now.
    pub is_new: bool,
}

/// The key of a replica: the one in the directory if it belongs to this id, or else a new one,
/// durable when this returns. So a copy of a directory that has taken another id does not sign with
/// the key of the original, whenever a crash came in between.
///
/// # Errors
/// The operating system's, or that it has no random numbers.
pub fn key_of(root: &Path, replica: ReplicaId) -> io::Result<Found> {
    let path = root.join("key");
    let found = match read(&path) {
        Ok(text) => parse(&text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if let Some((_, seed)) = found.filter(|(owner, _)| *owner == replica) {
        return Ok(Found {
            key: SecretKey::from_seed(&seed),
            is_new: false,
        });
    }
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(io::Error::other)?;
    write(&path, replica, &seed)?;
    Ok(Found {
        key: SecretKey::from_seed(&seed),
        is_new: true,
    })
}

/// The key of a replica if its directory has it, and what is wrong with the file. Changes nothing.
///
/// # Errors
/// The operating system's.
pub fn look_at_key(
    root: &Path,
    replica: ReplicaId,
) -> io::Result<(Option<SecretKey>, Option<&'static str>)> {
    let path = root.join("key");
    let text = match read(&path) {
        // A directory that no version with a log of roots has used yet has none.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((None, None)),
        text => text?,
    };
    let Some((owner, seed)) = parse(&text) else {
        let fault = "is no key; the next start makes another one, which peers notice";
        return Ok((None, Some(fault)));
    };
    if owner != replica {
        let fault = "is the key of another replica id; the next start makes another one";
        return Ok((None, Some(fault)));
    }
    let is_open = fs::metadata(&path)?.permissions().mode() & 0o077 != 0;
    let fault = is_open.then_some("may be read by others than its owner; chmod it to 600");
    Ok((Some(SecretKey::from_seed(&seed)), fault))
}

fn read(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > BYTES_MAX {
        return Ok(String::new());
    }
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}

/// `<replica id> <64 hex digits>`; a file that says something else is no key.
fn parse(text: &str) -> Option<(ReplicaId, [u8; 32])> {
    let (replica, seed) = text.trim().split_once(' ')?;
    let seed: FileHash = seed.parse().ok()?;
    Some((replica.parse().ok()?, seed.0))
}

fn write(path: &Path, replica: ReplicaId, seed: &[u8; 32]) -> io::Result<()> {
    let draft = path.with_extension("new");
    // One that a crash left may be readable by others.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)?;
    let text = format!("{replica} {}\n", hex(seed));
    finish_draft(file, &text, &draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stays_as_long_as_the_id_and_the_file_do() {
        let folder = tempfile::tempdir().unwrap();
        let (root, path) = (folder.path(), folder.path().join("key"));
        let of = |replica: u64| key_of(root, ReplicaId(replica)).unwrap();
        fs::write(path.with_extension("new"), "left by a crash").unwrap();
        let nothing = look_at_key(root, ReplicaId(1)).unwrap();
        assert!(nothing.0.is_none() && nothing.1.is_none() && !path.exists());
        let first = of(1);
        assert!(first.is_new && !of(1).is_new);
        assert_eq!(first.key.public(), of(1).key.public());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let look = |replica: u64| look_at_key(root, ReplicaId(replica)).unwrap();
        let (known, fault) = look(1);
        assert_eq!((known.unwrap().public(), fault), (first.key.public(), None));
        assert!(look(2).0.is_none() && look(2).1.is_some());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(look(1).0.is_some() && look(1).1.is_some());
        let other = of(2);
        assert!(other.is_new);
        assert_ne!(other.key.public(), first.key.public());
        for lost in ["", "no key", "0000000000000002 12"] {
            fs::write(&path, lost).unwrap();
            assert!(look(2).0.is_none() && look(2).1.is_some());
            assert_eq!(fs::read_to_string(&path).unwrap(), lost);
            assert!(of(2).is_new);
        }
        let shown = format!("{:?}", of(2));
        let text = fs::read_to_string(&path).unwrap();
        let seed = text.trim().split_once(' ').unwrap().1;
        assert!(!shown.contains(&seed[..8]), "{shown}");
    }
}
