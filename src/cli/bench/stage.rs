//! What every measurement begins with: a folder on a known disk, a plan, and a few words on both.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::cli::bench::args::CommonArgs;
use crate::cli::bench::disk::Disk;
use crate::cli::bench::plan::Plan;
use crate::cli::bench::values::Values;
use crate::cli::error::{CliError, file_error};
use crate::cli::output::{note, print};
use crate::cli::text::{grouped, human_bytes};
use crate::cli::workspace::Workspace;
use crate::config::process::executable;

/// A measurement that is set up.
#[derive(Debug)]
pub struct Stage {
    /// What is done.
    pub plan: Plan,
    /// How often.
    pub rounds: u64,
    /// The file of this program, to start a replica from.
    pub program: PathBuf,
    /// Where files are.
    pub folder: PathBuf,
    workspace: Workspace,
    disk: Disk,
}

/// What figures depend on, for programs.
#[derive(Debug, Serialize)]
pub struct Conditions {
    /// States that were loaded.
    pub states: u64,
    /// Size of each.
    pub value_bytes: usize,
    /// How long each side worked in each round.
    pub seconds: u64,
    /// How often.
    pub rounds: u64,
    /// Number that the states were made from.
    pub seed: u64,
    /// Where the files were.
    pub disk: Disk,
}

impl Stage {
    /// Sets a measurement up and tells people about it.
    ///
    /// # Errors
    /// [`CliError::File`] when there cannot be files, [`CliError::Output`].
    pub fn new(what: &str, states: u64, common: &CommonArgs, json: bool) -> Result<Self, CliError> {
        let parent = &common.data;
        fs::create_dir_all(parent).map_err(file_error("create", parent))?;
        let workspace = Workspace::temporary(parent, "samestate-bench")?;
        let disk = Disk::under(&workspace.folder)?;
        let values = Values {
            seed: common.seed,
            bytes: common.value_bytes,
        };
        let stage = Self {
            plan: Plan {
                states,
                values,
                time: Duration::from_secs(common.seconds),
            },
            rounds: common.rounds,
            program: executable().map_err(|error| CliError::Start(error.to_string()))?,
            folder: workspace.folder.clone(),
            workspace,
            disk,
        };
        if !json {
            print(&stage.in_words(what))?;
        }
        if stage.disk.in_memory {
            note("warning: that is memory and no disk; for durable writes give --data a disk");
        }
        Ok(stage)
    }

    fn in_words(&self, what: &str) -> String {
        let Values { seed, bytes } = self.plan.values;
        let (states, size) = (grouped(self.plan.states), human_bytes(bytes as u64));
        let (rounds, seconds) = (self.rounds, self.plan.time.as_secs());
        let (folder, disk) = (self.workspace.in_words(), self.disk.in_words());
        format!(
            "{what}: {states} states of {size} (seed {seed}); each side {rounds} x {seconds} s\n\
             {folder}\n{disk}\n"
        )
    }

    /// What the figures depend on.
    pub fn conditions(&self) -> Conditions {
        Conditions {
            states: self.plan.states,
            value_bytes: self.plan.values.bytes,
            seconds: self.plan.time.as_secs(),
            rounds: self.rounds,
            seed: self.plan.values.seed,
            disk: self.disk.clone(),
        }
    }

    /// Leaves the files where they are, because something is wrong with them or explained by them.
    pub fn keep_files(&mut self) {
        self.workspace.kept = true;
        let folder = self.folder.display();
        note(&format!("logs and data are left in {folder}"));
    }
}
