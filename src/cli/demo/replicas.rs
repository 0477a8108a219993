//! Replicas as processes of their own: started, killed, started again.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::cli::child::{Call, Child, Ready, START_TIMEOUT};
use crate::cli::demo::api::Api;
use crate::cli::error::CliError;

/// A running replica.
#[derive(Debug)]
pub struct Replica {
    /// What it is called here.
    pub name: &'static str,
    /// Speaks to it.
    pub api: Api,
    /// What it said when it came up.
    pub ready: Ready,
    /// How many processes it has had.
    pub life: u32,
    home: Home,
    child: Child,
}

/// Where replicas live, and what they run.
#[derive(Debug, Clone)]
struct Home {
    program: PathBuf,
    data: PathBuf,
    log: PathBuf,
}

impl Replica {
    /// Starts a replica below `folder` on a free port of the loopback interface.
    ///
    /// # Errors
    /// [`CliError::Child`] when it does not come up.
    pub async fn start(
        program: &Path,
        folder: &Path,
        name: &'static str,
    ) -> Result<Self, CliError> {
        let home = Home {
            program: program.to_owned(),
            data: folder.join(name),
            log: folder.join(format!("{name}.log")),
        };
        Self::spawn(name, home, "127.0.0.1:0", &[], 1).await
    }

    /// Where it listens, as others reach it.
    pub fn url(&self) -> String {
        format!("http://{}", self.ready.address)
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        &self.home.data
    }

    /// From the start of its process until it served, in seconds.
    pub fn seconds_to_ready(&self) -> f64 {
        self.child.seconds_to_ready
    }

    /// Ends it the way a crash would (SIGKILL): nothing is flushed or said.
    ///
    /// # Errors
    /// [`CliError::File`] when the system does not let us.
    pub fn kill(&mut self) -> Result<(), CliError> {
        self.child.kill()
    }

    /// Starts it again with the same data at the same address, with these peers from the start.
    ///
    /// # Errors
    /// [`CliError::Child`] when it does not come up.
    pub async fn restart(&mut self, peers: &[(&str, String)]) -> Result<(), CliError> {
        let (home, address) = (self.home.clone(), self.ready.address.clone());
        *self = Self::spawn(self.name, home, &address, peers, self.life + 1).await?;
        Ok(())
    }

    /// Fails when it has ended without being told to.
    ///
    /// # Errors
    /// [`CliError::Child`].
    pub fn check(&mut self) -> Result<(), CliError> {
        self.child.check()
    }

    async fn spawn(
        name: &'static str,
        home: Home,
        listen: &str,
        peers: &[(&str, String)],
        life: u32,
    ) -> Result<Self, CliError> {
        let called = format!("replica {name}");
        let mut call = Call::serve(called, &home.program, &home.data, listen, &home.log);
        for (peer, url) in peers {
            let peer = OsString::from(format!("{peer}={url}"));
            call.arguments.extend(["--peer".into(), peer]);
        }
        let child = call.start(START_TIMEOUT).await?;
        let ready = Ready::of(&child)?;
        Ok(Self {
            name,
            api: Api::new(&format!("http://{}", ready.address))?,
            ready,
            life,
            home,
            child,
        })
    }
}
