//! A bench's results drawn: a panel with a bar for each mode for every measure, and the timelines of the
//! median runs.

use std::io;

use plotters::prelude::*;

use super::plot::{self, Area, Drawn, colour, write};
use super::timeline::Timeline;
use crate::bench::results::{Arm, MEASURES, Measure, Results};

const COLUMNS: u32 = 2;
const HEADING: u32 = 44;
const PANEL: u32 = 96;
const BAR: i32 = 22;
const NAMES: i32 = 90;
/// Bars are this long at most; the value stands after them.
const LONGEST: f64 = 270.0;
const GAP: u32 = 20;

/// The results as an SVG file.
///
/// # Errors
/// When they cannot be drawn.
pub fn svg(results: &Results) -> io::Result<String> {
    let runs: Vec<_> = results.arms.iter().filter_map(Arm::median).collect();
    // One axis for both, so that the eye can compare them.
    let end = runs
        .iter()
        .map(|run| Timeline::of(&run.report).end)
        .fold(0.0, f64::max);
    let timelines = runs.iter().map(|run| {
        (
            run,
            Timeline {
                end,
                ..Timeline::of(&run.report)
            },
        )
    });
    let timelines: Vec<_> = timelines.collect();
    let panels = u32::try_from(MEASURES.len())
        .expect("few")
        .div_ceil(COLUMNS)
        * PANEL;
    let height = HEADING
        + panels
        + timelines
            .iter()
            .map(|(_, timeline)| GAP + plot::height(timeline))
            .sum::<u32>();
    plot::picture(height, |area| {
        let mut tips = Vec::new();
        let (top, below) = area.split_vertically(HEADING);
        let count = results
            .arms
            .iter()
            .map(|arm| arm.samples.len())
            .max()
            .unwrap_or_default();
        write(
            &top,
            (0, 0),
            &format!("Medians of {count} runs; a line goes from the least to the most"),
            18,
        )?;
        let (upper, mut rest) = below.split_vertically(panels);
        let rows = MEASURES.len().div_ceil(COLUMNS as usize);
        for (panel, measure) in upper
            .split_evenly((rows, COLUMNS as usize))
            .iter()
            .zip(&MEASURES)
        {
            bars(panel, measure, &results.arms)?;
        }
        for (run, timeline) in &timelines {
            let (_, below) = rest.split_vertically(GAP);
            let (place, below) = below.split_vertically(plot::height(timeline));
            let heading = format!("The median run: {}", plot::heading(&run.report));
            tips.extend(plot::draw(&place, &heading, timeline)?);
            rest = below;
        }
        Ok(tips)
    })
}

/// A bar for each mode, as long as its median, with a line from the least to the most.
fn bars(area: &Area, measure: &Measure, arms: &[Arm]) -> Drawn {
    write(area, (0, 0), measure.name, 15)?;
    let spreads: Vec<_> = arms
        .iter()
        .map(|arm| (arm.mode.name(), arm.spread(measure)))
        .collect();
    let most = spreads
        .iter()
        .filter_map(|(_, spread)| Some(spread.as_ref()?.max))
        .fold(f64::MIN_POSITIVE, f64::max);
    #[expect(clippy::cast_possible_truncation, reason = "pixels")]
    let x = |value: f64| NAMES + (value / most * LONGEST) as i32;
    for (at, ((name, spread), y)) in spreads
        .iter()
        .zip((BAR..).step_by(BAR as usize + 4))
        .enumerate()
    {
        write(area, (12, y + 4), name, 13)?;
        let Some(spread) = spread else {
            write(area, (NAMES, y + 4), "not known", 13)?;
            continue;
        };
        // Blue and orange.
        area.draw(&Rectangle::new(
            [(NAMES, y), (x(spread.median), y + BAR)],
            colour(4 * at).filled(),
        ))?;
        let middle = y + BAR / 2;
        area.draw(&PathElement::new(
            [(x(spread.min), middle), (x(spread.max), middle)],
            BLACK.mix(0.7),
        ))?;
        write(
            area,
            (x(spread.max) + 8, y + 4),
            &(measure.show)(spread.median),
            13,
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::results;

    #[test]
    fn every_measure_and_both_timelines_are_drawn() {
        let results = results(&[2.0, 4.0, 3.0], &[4.0, 5.0, 9.0]);
        let svg = svg(&results).unwrap();
        assert!(svg.starts_with("<svg"));
        assert!(MEASURES.iter().all(|measure| svg.contains(measure.name)));
        assert_eq!(svg.matches("The median run").count(), 2);
    }
}
