//! See [`samestate_fuzz::targets`].

#![no_main]

use libfuzzer_sys::fuzz_target;
use samestate_fuzz::targets::named;

fuzz_target!(|input: &[u8]| {
    named("replies")(input);
});
