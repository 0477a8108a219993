//! The replica that is measured: a child process with a data directory of its own.

use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use tokio::time::sleep;

use crate::cli::bench::connection::Connection;
use crate::cli::bench::error::BenchError;
use crate::cli::bench::plan::{Plan, id};
use crate::cli::child::{Call, Child, Ready, START_TIMEOUT};
use crate::cli::client::{Client, ServerUrl};
use crate::cli::error::CliError;
use crate::types::id::Namespace;

/// How often a replica that starts is asked for a state.
const POLL: Duration = Duration::from_millis(1);

/// A running replica.
#[derive(Debug)]
pub struct Server {
    /// Where it listens, `HOST:PORT`.
    pub address: String,
    call: Call,
    child: Child,
}

/// How long a replica took to come back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Restart {
    /// From the start of the process to the line that says that it serves, in seconds.
    pub ready: f64,
    /// From the start of the process to the first state that was read, in seconds.
    pub first_read: f64,
}

impl Server {
    /// Starts a replica below `folder` on a free port of the loopback interface.
    ///
    /// # Errors
    /// [`CliError::Child`] when it does not come up.
    pub async fn start(program: &Path, folder: &Path) -> Result<Self, CliError> {
        let (data, log) = (folder.join("samestate"), folder.join("samestate.log"));
        let call = |listen: &str| {
            let name = "the server".to_owned();
            Call::serve(name, program, &data, listen, &log)
        };
        let child = call("127.0.0.1:0").start(START_TIMEOUT).await?;
        let address = Ready::of(&child)?.address;
        Ok(Self {
            call: call(&address),
            address,
            child,
        })
    }

    /// Stores all states of a plan.
    ///
    /// # Errors
    /// [`CliError`] when the replica refuses.
    pub async fn load(&self, plan: &Plan) -> Result<(), CliError> {
        let client = self.client()?;
        for states in plan.batches() {
            let lines: Vec<String> = states
                .map(|state| {
                    let (id, content) = (id(state), STANDARD.encode(plan.values.make(state, 0)));
                    format!("{{\"op\":\"put\",\"id\":\"{id}\",\"content\":\"{content}\"}}")
                })
                .collect();
            let request = client.request(Method::POST, "batch", &[]);
            client.ask(request.body(lines.join("\n"))).await?;
        }
        Ok(())
    }

    /// Ends it the way a crash would (SIGKILL).
    ///
    /// # Errors
    /// [`CliError::File`] when the system does not let us.
    pub fn kill(&mut self) -> Result<(), CliError> {
        self.child.kill()
    }

    /// Fails when it has ended without being told to, which explains whatever failed before.
    ///
    /// # Errors
    /// [`CliError::Child`].
    pub fn check(&mut self) -> Result<(), CliError> {
        self.child.check()
    }

    /// Starts it again on the same files and waits until it gives out a state.
    ///
    /// # Errors
    /// [`CliError::Child`] when it does not come up.
    pub async fn restart(&mut self, state: u64) -> Result<Restart, CliError> {
        let started = Instant::now();
        let call = self.call.clone();
        let up = call.start(START_TIMEOUT);
        let first_read = first_read(&self.address, state, started);
        let (child, first_read) = tokio::try_join!(up, first_read)?;
        self.child = child;
        Ok(Restart {
            ready: self.child.seconds_to_ready,
            first_read,
        })
    }

    fn client(&self) -> Result<Client, CliError> {
        let server: ServerUrl =
            format!("http://{}", self.address)
                .parse()
                .map_err(|_| CliError::NotSamestate {
                    server: self.address.clone(),
                    what: "it gave a malformed address".to_owned(),
                })?;
        Client::new(server, Namespace::default_namespace(), None)
    }
}

/// Asks until there is an answer; returns the seconds since the process was started.
async fn first_read(address: &str, state: u64, started: Instant) -> Result<f64, CliError> {
    let id = id(state);
    loop {
        let read = async {
            let mut connection = Connection::open(address).await?;
            connection.get(&id).await.map(drop)
        };
        match read.await {
            // A state that is gone is found out later, when all of them are read.
            Ok(()) | Err(BenchError::Refused { status: 404, .. }) => {
                return Ok(started.elapsed().as_secs_f64());
            }
            Err(_) => {}
        }
        if started.elapsed() > START_TIMEOUT {
            return Err(CliError::NoServer {
                server: address.to_owned(),
            });
        }
        sleep(POLL).await;
    }
}
