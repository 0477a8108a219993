//! Hostile peers over real HTTP.
