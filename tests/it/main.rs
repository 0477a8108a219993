//! One binary for all integration tests: a second one would link the whole crate again.

#[cfg(test)]
mod backup;
#[cfg(test)]
mod bad_data_directory;
#[cfg(test)]
mod bench;
#[cfg(test)]
mod collection;
#[cfg(test)]
mod copies;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod crash_images;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod demo;
#[cfg(test)]
mod dictionaries;
#[cfg(test)]
mod engine_power_cuts;
#[cfg(test)]
mod full_disk;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod hostile_peers;
#[cfg(test)]
mod http;
#[cfg(test)]
mod large_repairs;
#[cfg(test)]
mod large_states;
#[cfg(test)]
mod merkle_vectors;
#[cfg(test)]
mod no_space;
#[cfg(test)]
mod operators;
#[cfg(test)]
mod permissions;
#[cfg(test)]
mod read_ahead;
#[cfg(test)]
mod references;
#[cfg(test)]
mod replication;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod roots;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod shards;
#[cfg(test)]
mod simulated_disk;
#[cfg(test)]
mod tidy;
#[cfg(test)]
mod traffic;
#[cfg(test)]
mod versions;
