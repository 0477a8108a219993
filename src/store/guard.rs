//! The one place where panics of the storage engine end. The engine checks the pages that it reads
//! only when it is asked to check a whole file; a damaged one may make it panic.
//!
//! A panic within [`guarded`] becomes a [`StoreError::Damaged`], and its message stays out of the
//! process's standard error.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use crate::store::error::StoreError;

thread_local! {
    /// True while this thread is within the engine.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
    /// Where the newest guarded panic of this thread happened.
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

static HOOK: Once = Once::new();

/// Longest part of a panic's message that is passed on.
const MESSAGE_CHARS: usize = 160;

/// Runs a step of the engine.
///
/// # Errors
/// What the step returns; [`StoreError::Damaged`] when the engine panicked. A handle of the engine
/// that was being written through is not to be used any more then, only dropped.
pub fn guarded<R, E: Into<StoreError>>(
    step: impl FnOnce() -> Result<R, E>,
) -> Result<R, StoreError> {
    HOOK.call_once(keep_guarded_panics_quiet);
    let outer = GUARDED.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(step));
    GUARDED.set(outer);
    match outcome {
        Ok(done) => done.map_err(Into::into),
        Err(panic) => Err(StoreError::damaged(format!(
            "the engine met a page that makes no sense ({}{})",
            message(&*panic),
            PLACE.take()
        ))),
    }
}

fn keep_guarded_panics_quiet() {
    let others = take_hook();
    set_hook(Box::new(move |panic: &PanicHookInfo<'_>| {
        if GUARDED.get() {
            let place = panic.location();
            let place = place.map(|at| format!(", {}:{}", file_name(at.file()), at.line()));
            PLACE.set(place.unwrap_or_default());
        } else {
            others(panic);
        }
    }));
}

fn file_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let line = text.unwrap_or("a panic").lines().next();
    line.unwrap_or_default()
        .chars()
        .take(MESSAGE_CHARS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_the_engine_is_damage_and_others_are_panics() {
        let broken: Result<u8, StoreError> = guarded(|| {
            let page: &[u8] = &[];
            let inner: Result<u8, StoreError> = guarded(|| Ok::<u8, StoreError>(1));
            Ok::<u8, StoreError>(inner? + page[std::hint::black_box(3)])
        });
        let told = broken.unwrap_err().to_string();
        assert!(told.contains("out of bounds"), "{told}");
        assert!(told.contains("guard.rs"), "{told}");
        assert!(told.contains("samestate verify"), "{told}");
        assert!(!GUARDED.get());
        let other = catch_unwind(|| panic!("a defect"));
        assert_eq!(message(&*other.unwrap_err()), "a defect");
    }
}
