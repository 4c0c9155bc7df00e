//! The badge on the program's icon: how far the work is.

use super::work::Work;

/// What the badge shows now.
#[derive(Debug, Default)]
pub struct Badge {
    shown: Option<String>,
}

impl Badge {
    /// What the badge shall show from now on, when that is something else than before; nothing is no badge.
    pub fn change(&mut self, works: &[Work]) -> Option<Option<&str>> {
        let text = text(works);
        if text == self.shown {
            return None;
        }
        self.shown = text;
        Some(self.shown.as_deref())
    }
}

/// The percentage of the first work that knows how far it is. Rounded down: what says 100 % is done.
fn text(works: &[Work]) -> Option<String> {
    let share = works.iter().find_map(|work| work.share)?;
    Some(format!("{:.0} %", (share.clamp(0.0, 1.0) * 100.0).floor()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::Kind;

    fn work(share: Option<f32>) -> Work {
        Work { kind: Kind::Training, share }
    }

    #[test]
    fn the_badge_is_the_share_in_percent_and_only_changes_are_told() {
        let mut badge = Badge::default();
        assert_eq!(badge.change(&[]), None);
        assert_eq!(badge.change(&[work(None)]), None);
        assert_eq!(badge.change(&[work(None), work(Some(0.4199))]), Some(Some("41 %")));
        assert_eq!(badge.change(&[work(Some(0.4101))]), None, "the same percentage");
        assert_eq!(badge.change(&[work(Some(0.9999))]), Some(Some("99 %")), "not done before it is done");
        assert_eq!(badge.change(&[work(Some(1.5))]), Some(Some("100 %")));
        assert_eq!(badge.change(&[]), Some(None), "the badge goes with the work");
    }
}
