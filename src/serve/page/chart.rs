//! Sizes of backups over time, as a picture that follows the page's colours.

use std::fmt::Write;

use super::live::Stored;
use crate::units;

/// More bars than this cannot be told apart on a desktop.
pub const MOST: usize = 200;
const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 180.0;

/// The sizes of these backups, oldest first, each with a tip; `None` when there are none. Bars become
/// as wide as the screen, and words beside them stay as large as all words are.
pub fn sizes(backups: &[Stored]) -> Option<String> {
    let shown = &backups[backups.len().saturating_sub(MOST)..];
    let (first, last) = (shown.first()?, shown.last()?);
    let most = shown.iter().map(|backup| backup.bytes).max()?.max(1);
    let seconds = |backup: &Stored| backup.backup_id.time().as_second();
    let (begin, end) = (seconds(first), seconds(last));
    #[expect(clippy::cast_precision_loss, reason = "pixels")]
    let span = (end - begin).max(1) as f64;
    #[expect(clippy::cast_precision_loss, reason = "pixels")]
    let width = (WIDTH * 0.8 / shown.len() as f64).clamp(2.0, 24.0);
    let largest = units::size(most);
    let day = |backup: &Stored| backup.backup_id.time().strftime("%Y-%m-%d").to_string();
    let mut figure = format!(
        "<figure class=sizes><span>{largest}</span>\
         <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=none role=img \
         aria-label=\"Sizes of {}, the largest {largest}\">",
        units::count(shown.len(), "backup"),
    );
    for backup in shown {
        #[expect(clippy::cast_precision_loss, reason = "pixels")]
        let (at, share) = (
            (seconds(backup) - begin) as f64 / span,
            backup.bytes as f64 / most as f64,
        );
        let height = (share * HEIGHT).max(2.0);
        // Writing to a text does not fail.
        let _ = write!(
            figure,
            "<rect class=bar x={:.1} y={:.1} width={width:.1} height={height:.1}><title>{}: {}</title></rect>",
            at * (WIDTH - width),
            HEIGHT - height,
            backup.backup_id.time().strftime("%Y-%m-%d %H:%M UTC"),
            units::size(backup.bytes),
        );
    }
    let _ = write!(
        figure,
        "</svg><span>{}</span><span>{}</span></figure>",
        day(first),
        day(last)
    );
    Some(figure)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(second: i64, bytes: u64) -> Stored {
        let time = jiff::Timestamp::from_second(second).unwrap();
        Stored {
            backup_id: crate::catalog::BackupId::at(time),
            store: "s".into(),
            bytes,
        }
    }

    #[test]
    fn each_of_the_newest_backups_has_a_bar_and_none_falls_out_of_the_picture() {
        assert_eq!(sizes(&[]), None);
        for backups in [
            vec![stored(0, 0)],
            vec![stored(0, u64::MAX), stored(0, 1)],
            (0..500).map(|day| stored(day * 86_400, 100)).collect(),
        ] {
            let svg = sizes(&backups).unwrap();
            assert_eq!(svg.matches("<rect").count(), backups.len().min(MOST));
            for (_, rest) in svg
                .match_indices("<rect class=bar x=")
                .map(|(at, m)| (at, &svg[at + m.len()..]))
            {
                let x: f64 = rest.split(' ').next().unwrap().parse().unwrap();
                assert!((0.0..WIDTH).contains(&x), "{x}");
            }
        }
    }
}
