//! Which photos are kept for validation, and which of many are taken for a trial. Photos are drawn by their names, so
//! the order of the file system does not matter, and a photo that is added moves hardly any other.

use std::path::Path;

use super::random::rank;
use super::{Photo, Split};

/// Turns `fraction` of each class's training photos into validation. A class of two or more keeps at least one on each
/// side; none is taken when the fraction is 0.
pub(super) fn keep_for_validation(photos: &mut [Photo], root: &Path, fraction: f64, seed: u64) {
    if fraction == 0.0 {
        return;
    }
    for of_class in training_by_class(photos, root, "validation", seed) {
        let count = of_class.len();
        if count >= 2 {
            let kept = ((count as f64 * fraction).round() as usize).clamp(1, count - 1);
            of_class.iter().take(kept).for_each(|photo| photos[*photo].split = Split::Validation);
        }
    }
}

/// Which photos remain when no class may have more than `per_class` training photos, and all together no more than
/// `max_photos`. Classes keep their shares, and a larger number takes all that a smaller one does.
pub(super) fn capped(
    photos: &[Photo],
    root: &Path,
    per_class: Option<usize>,
    max_photos: Option<usize>,
    seed: u64,
) -> Vec<bool> {
    let classes = training_by_class(photos, root, "trial", seed);
    let available: Vec<usize> = classes.iter().map(|class| class.len().min(per_class.unwrap_or(usize::MAX))).collect();
    let taken = shares(&available, max_photos.unwrap_or(usize::MAX));
    let mut remain: Vec<bool> = photos.iter().map(|photo| photo.split != Split::Train).collect();
    for (class, taken) in classes.iter().zip(taken) {
        class.iter().take(taken).for_each(|photo| remain[*photo] = true);
    }
    remain
}

/// The training photos of each class, in the order they are drawn.
fn training_by_class(photos: &[Photo], root: &Path, purpose: &str, seed: u64) -> Vec<Vec<usize>> {
    let classes = photos.iter().map(|photo| photo.class + 1).max().unwrap_or(0);
    let mut drawn: Vec<Vec<(u64, usize)>> = vec![Vec::new(); classes];
    for (index, photo) in photos.iter().enumerate().filter(|(_, photo)| photo.split == Split::Train) {
        // Inside the root: a folder that is moved keeps its split.
        let name = photo.path.strip_prefix(root).unwrap_or(&photo.path);
        drawn[photo.class].push((rank(seed, purpose, name.as_os_str().as_encoded_bytes()), index));
    }
    drawn.iter_mut().for_each(|class| class.sort_unstable());
    drawn.into_iter().map(|class| class.into_iter().map(|(_, index)| index).collect()).collect()
}

/// `total` seats among classes by Sainte-Laguë's method, after one for each class from the largest down.
fn shares(available: &[usize], total: usize) -> Vec<usize> {
    if available.iter().sum::<usize>() <= total {
        return available.to_vec();
    }
    let mut taken = vec![0; available.len()];
    let claim = |class: usize, taken: usize| match taken {
        0 => (true, available[class] as f64),
        _ => (false, available[class] as f64 / (2 * taken + 1) as f64),
    };
    for _ in 0..total {
        let open = (0..available.len()).rev().filter(|class| taken[*class] < available[*class]);
        let next = open.max_by(|a, b| {
            let (a, b) = (claim(*a, taken[*a]), claim(*b, taken[*b]));
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
        });
        let Some(next) = next else { break };
        taken[next] += 1;
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_the_classes_sizes_and_leave_none_out() {
        assert_eq!(shares(&[100, 50, 50], 20), [10, 5, 5]);
        assert_eq!(shares(&[1000, 3, 1], 10), [8, 1, 1]);
        assert_eq!(shares(&[2, 2, 2], 10), [2, 2, 2]);
        assert_eq!(shares(&[5, 9, 7], 2), [0, 1, 1]);
        assert_eq!(shares(&[0, 4], 3), [0, 3]);
    }

    #[test]
    fn a_larger_trial_takes_all_that_a_smaller_one_does() {
        let available = [41, 7, 120, 1, 18];
        for total in 0..180 {
            let (small, large) = (shares(&available, total), shares(&available, total + 1));
            assert_eq!(small.iter().sum::<usize>(), total);
            assert!(small.iter().zip(&large).all(|(small, large)| small <= large), "{total}");
        }
    }
}
