//! Directories that a command works in: given ones are kept, temporary ones removed in the end.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::cli::error::{CliError, file_error};
use crate::cli::output::note;

/// Names that are tried for a temporary directory.
const NAMES: u32 = 100;

/// A directory that held nothing when the command began.
#[derive(Debug)]
pub struct Workspace {
    /// Where it is.
    pub folder: PathBuf,
    /// False when it is to be removed in the end.
    pub kept: bool,
}

impl Workspace {
    /// The given directory, which is made when it does not exist, and kept.
    ///
    /// # Errors
    /// [`CliError::Start`] when there is something in it, [`CliError::File`].
    pub fn given(folder: &Path) -> Result<Self, CliError> {
        fs::create_dir_all(folder).map_err(file_error("create", folder))?;
        let mut held = fs::read_dir(folder).map_err(file_error("read", folder))?;
        if held.next().is_some() {
            return Err(CliError::Start(format!(
                "{} is not empty; give --data a new or an empty directory",
                folder.display()
            )));
        }
        Ok(Self {
            folder: folder.to_owned(),
            kept: true,
        })
    }

    /// A new directory below `parent` whose name begins with `name`.
    ///
    /// # Errors
    /// [`CliError::File`].
    pub fn temporary(parent: &Path, name: &str) -> Result<Self, CliError> {
        let process = std::process::id();
        let mut last = parent.to_owned();
        for number in 0..NAMES {
            let folder = parent.join(format!("{name}-{process}-{number}"));
            match fs::create_dir(&folder) {
                Ok(()) => {
                    return Ok(Self {
                        folder,
                        kept: false,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = folder,
                Err(error) => return Err(file_error("create", &folder)(error)),
            }
        }
        let taken = io::Error::from(io::ErrorKind::AlreadyExists);
        Err(file_error("create", &last)(taken))
    }

    /// Where data and logs are, and whether they stay.
    pub fn in_words(&self) -> String {
        let folder = self.folder.display();
        if self.kept {
            format!("data and logs in {folder}")
        } else {
            format!("data and logs in {folder}, removed at the end")
        }
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            let folder = self.folder.display();
            note(&format!("warning: cannot remove {folder}: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_workspace_goes_and_a_given_one_stays() {
        let parent = tempfile::tempdir().unwrap();
        let one = Workspace::temporary(parent.path(), "x").unwrap();
        let other = Workspace::temporary(parent.path(), "x").unwrap();
        let folder = one.folder.clone();
        assert!(folder.is_dir() && folder != other.folder);
        drop(one);
        assert!(!folder.exists() && other.folder.is_dir());

        let given = tempfile::tempdir().unwrap();
        let folder = given.path().join("new");
        drop(Workspace::given(&folder).unwrap());
        assert!(folder.is_dir());
        assert!(Workspace::given(given.path()).is_err());
    }
}
