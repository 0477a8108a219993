//! Other programs that make deltas, if they are installed.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cli::bench::error::BenchError;
use crate::cli::error::{CliError, file_error};
use crate::cli::workspace::Workspace;

/// A program and its arguments; `OLD`, `NEW`, `SIGNATURE` and `DELTA` stand for files.
#[derive(Debug, Clone, Copy)]
pub struct Tool {
    /// Its name in the table.
    pub name: &'static str,
    /// What is run, one after the other.
    steps: &'static [&'static [&'static str]],
}

const TOOLS: [Tool; 4] = [
    Tool {
        name: "xdelta3 -9",
        steps: &[&["xdelta3", "-9", "-e", "-f", "-s", "OLD", "NEW", "DELTA"]],
    },
    Tool {
        name: "bsdiff",
        steps: &[&["bsdiff", "OLD", "NEW", "DELTA"]],
    },
    Tool {
        name: "rdiff, delta through zstd -3",
        steps: &[
            &["rdiff", "-f", "signature", "OLD", "SIGNATURE"],
            &["rdiff", "-f", "delta", "SIGNATURE", "NEW", "PLAIN"],
            &["zstd", "-q", "-f", "-3", "PLAIN", "-o", "DELTA"],
        ],
    },
    Tool {
        name: "zstd --patch-from -19",
        steps: &[&[
            "zstd",
            "-q",
            "-f",
            "-19",
            "--patch-from",
            "OLD",
            "NEW",
            "-o",
            "DELTA",
        ]],
    },
];

/// Those that can be started.
pub fn installed() -> Vec<Tool> {
    let starts = |step: &[&str]| {
        let program = step.first().copied().unwrap_or_default();
        let mut command = Command::new(program);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.arg("-V").status().is_ok()
    };
    let all = TOOLS.into_iter();
    all.filter(|tool| tool.steps.iter().all(|step| starts(step)))
        .collect()
}

impl Tool {
    /// Length of the delta that the program makes in a temporary folder below `parent`.
    ///
    /// # Errors
    /// [`CliError`] when a file cannot be written or the program fails.
    pub fn delta(&self, base: &[u8], new: &[u8], parent: &Path) -> Result<usize, CliError> {
        let workspace = Workspace::temporary(parent, "samestate-bench")?;
        let folder = &workspace.folder;
        for (name, bytes) in [("OLD", base), ("NEW", new)] {
            let path = folder.join(name);
            fs::write(&path, bytes).map_err(file_error("write", &path))?;
        }
        for step in self.steps {
            self.run(folder, step)?;
        }
        let path = folder.join("DELTA");
        let made = fs::metadata(&path).map_err(file_error("read", &path))?;
        Ok(usize::try_from(made.len()).unwrap_or(usize::MAX))
    }

    fn run(&self, folder: &Path, step: &[&str]) -> Result<(), CliError> {
        let Some((program, arguments)) = step.split_first() else {
            return Ok(());
        };
        let mut command = Command::new(program);
        command.args(arguments).current_dir(folder);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        match command.status() {
            Ok(status) if status.success() => Ok(()),
            _ => Err(BenchError::Tool(self.name).into()),
        }
    }
}
