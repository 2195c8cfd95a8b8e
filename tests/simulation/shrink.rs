//! A long list of steps that fails, made short.

use std::time::{Duration, Instant};

/// Time spent on it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The numbers of steps that are enough for `fails`, in order: delta debugging.
///
/// Takes away ever smaller parts, as long as what remains fails.
pub(crate) fn shrink(count: usize, fails: impl Fn(&[usize]) -> bool) -> Vec<usize> {
    let begin = Instant::now();
    let mut kept: Vec<usize> = (0..count).collect();
    let mut size = count.div_ceil(2).max(1);
    loop {
        let mut at = 0;
        let mut is_shorter = false;
        while at < kept.len() {
            if begin.elapsed() > PATIENCE {
                return kept;
            }
            let end = (at + size).min(kept.len());
            let without: Vec<usize> = [&kept[..at], &kept[end..]].concat();
            if fails(&without) {
                kept = without;
                is_shorter = true;
            } else {
                at = end;
            }
        }
        if size == 1 && !is_shorter {
            return kept;
        }
        if !is_shorter || size > kept.len() {
            size = (size / 2).max(1);
        }
    }
}

#[test]
fn shrinking_leaves_only_the_steps_that_matter() {
    let matters = [3, 17, 18, 90];
    let fails = |kept: &[usize]| matters.iter().all(|it| kept.contains(it));
    assert_eq!(shrink(100, fails), matters);
    assert_eq!(shrink(1, |_| true), [0; 0]);
}
