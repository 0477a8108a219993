//! One binary for all integration tests: a second one would link the whole crate again.

#[cfg(test)]
mod demo;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod hostile_peers;
#[cfg(test)]
mod http;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod tidy;
