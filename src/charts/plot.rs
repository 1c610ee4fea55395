//! A run drawn as a chart: a row for each worker, a bar for each span, a colour for each database.

use std::io;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::timeline::{Bar, Timeline, letter, tick_name, ticks};
use crate::run::{JobReport, JobResult, RunReport};
use crate::units::{size, time};

/// A place to draw, in pixels.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// The result of drawing.
pub type Drawn<T = ()> = Result<T, DrawingAreaErrorKind<io::Error>>;

/// Width of a picture, in pixels.
const WIDTH: u32 = 1000;
/// Space around a picture.
const MARGIN: u32 = 16;
/// A line of text: the heading, and each line of the legend.
const LINE: u32 = 24;
const ROW: u32 = 26;
const AXIS: u32 = 30;
/// Names of the workers stand left of the rows.
const NAMES: u32 = 90;
/// At most so many ticks on the axis.
const TICKS: usize = 10;
/// About how wide a letter is, for the legend's columns.
const LETTER: u32 = 7;
const SWATCH: u32 = 20;
/// A bar that is this wide has room for its database's letter.
const LETTERED: i32 = 12;

/// What is said of a bar to whom points at it.
pub struct Tip {
    corners: [(i32, i32); 2],
    text: String,
}

/// The run's timeline, as an SVG file.
///
/// # Errors
/// When it cannot be drawn.
pub fn svg(report: &RunReport) -> io::Result<String> {
    let timeline = Timeline::of(report);
    picture(height(&timeline), |area| {
        draw(area, &heading(report), &timeline)
    })
}

/// The run's timeline, as an HTML page with the SVG in it.
///
/// # Errors
/// When it cannot be drawn.
pub fn html(report: &RunReport) -> io::Result<String> {
    let (svg, title) = (svg(report)?, escape(&heading(report)));
    let rows: String = report.jobs.iter().map(row).collect();
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
         <style>body{{font:15px/1.5 system-ui,sans-serif;margin:2rem;color:#111;background:#fff}}\
         svg{{max-width:100%;height:auto}}th,td{{text-align:left;padding:.2rem 1.2rem .2rem 0;\
         vertical-align:top;white-space:pre-wrap}}</style>\n{svg}\n\
         <table>\n<tr><th>Database<th>Result<th>Dump<th>Archive<th>Time<th>Backup</tr>\n{rows}\
         </table>\n</html>\n"
    ))
}

fn row(job: &JobReport) -> String {
    let result = match job.result {
        JobResult::Stored => "stored".to_owned(),
        JobResult::CopyMissing => "copy missing".to_owned(),
        JobResult::Cancelled => "cancelled".to_owned(),
        JobResult::Failed => format!("failed: {}", job.error.as_deref().unwrap_or_default()),
    };
    let id = job.backup_id.as_ref().map_or("", |id| id.as_str());
    format!(
        "<tr><th>{}<td>{}<td>{}<td>{}<td>{}<td>{id}</tr>\n",
        escape(&job.database),
        escape(&result),
        size(job.dump_bytes),
        size(job.archive_bytes),
        time(job.seconds)
    )
}

/// A text that stands in SVG or HTML.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            letter => escaped.push(letter),
        }
    }
    escaped
}

/// An SVG file of `WIDTH` and `height`, margins not counted, with what `draw` draws.
pub fn picture(height: u32, draw: impl FnOnce(&Area) -> Drawn<Vec<Tip>>) -> io::Result<String> {
    let (mut text, mut tips) = (String::new(), Vec::new());
    let size = (WIDTH + 2 * MARGIN, height + 2 * MARGIN);
    let drawn = || {
        let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
        root.fill(&WHITE)?;
        tips = draw(&root.margin(MARGIN, MARGIN, MARGIN, MARGIN))?;
        root.present()
    };
    drawn().map_err(io::Error::other)?;
    let end = text.rfind("</svg>").unwrap_or(text.len());
    let tips: String = tips.iter().map(Tip::svg).collect();
    text.insert_str(end, &tips);
    Ok(text)
}

impl Tip {
    /// Something that cannot be seen over the bar, and is named: what draws has no names.
    fn svg(&self) -> String {
        let [(left, top), (right, bottom)] = self.corners;
        let text = escape(&self.text);
        format!(
            "<path d=\"M{left} {top}H{right}V{bottom}H{left}Z\" fill-opacity=\"0\">\
             <title>{text}</title></path>\n"
        )
    }
}

/// `2026-11-23 18:03:27 UTC: 3 databases streamed in 3.5 s`
pub fn heading(report: &RunReport) -> String {
    let (count, how, seconds) = (report.jobs.len(), report.mode.name(), time(report.seconds));
    let began = report.started.strftime("%Y-%m-%d %H:%M:%S UTC");
    format!(
        "{began}: {count} database{} {how} in {seconds}",
        if count == 1 { "" } else { "s" }
    )
}

/// Height of a timeline, in pixels.
pub fn height(timeline: &Timeline) -> u32 {
    let lines = legend(timeline)
        .last()
        .map_or(0, |(_, (_, y))| y / LINE + 1);
    2 * LINE + length(timeline.rows.len()) * ROW + AXIS + lines * LINE
}

/// Draws a timeline at the top of `area`.
pub fn draw(area: &Area, heading: &str, timeline: &Timeline) -> Drawn<Vec<Tip>> {
    let (title, below) = area.split_vertically(LINE + LINE / 2);
    write(&title, (0, 0), heading, 18)?;
    let rows = length(timeline.rows.len()) * ROW;
    let (chart, below) = below.split_vertically(rows + AXIS);
    let tips = bars(&chart, timeline)?;
    for (at, (x, y)) in legend(timeline) {
        let (x, y) = (pixel(NAMES + x), pixel(LINE / 2 + y));
        below.draw(&Rectangle::new(
            [(x, y + 3), (x + 12, y + 15)],
            colour(at).filled(),
        ))?;
        write(
            &below,
            (x + pixel(SWATCH), y + 2),
            &format!("{} {}", letter(at), timeline.databases[at]),
            13,
        )?;
    }
    Ok(tips)
}

/// The rows, their names, and the axis below them.
fn bars(area: &Area, timeline: &Timeline) -> Drawn<Vec<Tip>> {
    let mut tips = Vec::new();
    let count = timeline.rows.len();
    // An empty range has no scale.
    let end = timeline.end.max(f64::MIN_POSITIVE);
    let mut chart = ChartBuilder::on(area)
        .set_label_area_size(LabelAreaPosition::Left, NAMES)
        .set_label_area_size(LabelAreaPosition::Bottom, AXIS)
        .margin_right(LINE)
        .build_cartesian_2d(0.0..end, 0.0..f64::from(length(count)))?;
    let top = f64::from(length(count));
    let label = TextStyle::from(("sans-serif", 13)).pos(Pos::new(HPos::Center, VPos::Top));
    for tick in ticks(end, TICKS) {
        chart.draw_series([PathElement::new(
            [(tick, 0.0), (tick, top)],
            BLACK.mix(0.15),
        )])?;
        let (x, y) = chart.backend_coord(&(tick, 0.0));
        let (left, above) = area.get_base_pixel();
        area.draw(&Text::new(
            tick_name(tick),
            (x - left, y - above + 6),
            label.clone(),
        ))?;
    }
    let name = TextStyle::from(("sans-serif", 13)).pos(Pos::new(HPos::Right, VPos::Center));
    for (at, row) in timeline.rows.iter().enumerate() {
        // The first row on top; the axis counts upwards.
        let base = f64::from(length(count - 1 - at));
        let y = pixel(length(at) * ROW + ROW / 2);
        area.draw(&Text::new(
            row.name.as_str(),
            (pixel(NAMES - 8), y),
            name.clone(),
        ))?;
        let corners = |bar: &Bar| [(bar.start, base + 0.86), (bar.end, base + 0.14)];
        let drawn = row.bars.iter();
        chart.draw_series(
            drawn.map(|bar| Rectangle::new(corners(bar), colour(bar.database).filled())),
        )?;
        for bar in &row.bars {
            let [begin, end] = corners(bar).map(|corner| chart.backend_coord(&corner));
            if end.0 - begin.0 >= LETTERED {
                let (left, _) = area.get_base_pixel();
                let centre = (i32::midpoint(begin.0, end.0) - left, y - pixel(LETTER) + 1);
                area.draw(&Text::new(
                    letter(bar.database).to_string(),
                    centre,
                    label.clone(),
                ))?;
            }
            let name = timeline.databases[bar.database];
            let (from, took) = (time(bar.start), time(bar.end - bar.start));
            let text = format!("{name}, {}: {took} from {from} on", row.name);
            let corners = [begin, end];
            tips.push(Tip { corners, text });
        }
        if at > 0 && timeline.rows[at - 1].step != row.step {
            let line = [(0.0, base + 1.0), (end, base + 1.0)];
            chart.draw_series([PathElement::new(line, BLACK.mix(0.4))])?;
        }
    }
    Ok(tips)
}

/// Where each database's entry in the legend stands: columns as wide as the longest name, in lines
/// that fit.
fn legend(timeline: &Timeline) -> impl DoubleEndedIterator<Item = (usize, (u32, u32))> {
    let longest = timeline
        .databases
        .iter()
        .map(|name| length(name.chars().count()))
        .max()
        .unwrap_or_default();
    let column = (SWATCH + (longest + 2) * LETTER + LINE).min(WIDTH - NAMES);
    let columns = (WIDTH - NAMES) / column;
    (0..timeline.databases.len()).map(move |at| {
        (
            at,
            (length(at) % columns * column, length(at) / columns * LINE),
        )
    })
}

/// Writes a line of text, its top left corner at `at`.
pub fn write(area: &Area, at: (i32, i32), text: &str, size: u32) -> Drawn {
    area.draw(&Text::new(text, at, ("sans-serif", size)))
}

/// The colour of a database: hues a golden angle apart, so that neighbours differ however many
/// there are.
pub fn colour(database: usize) -> HSLColor {
    let turns = f64::from(length(database)) * 0.618_034 + 0.58;
    let lightness = if database.is_multiple_of(2) {
        0.55
    } else {
        0.68
    };
    HSLColor(turns.fract(), 0.6, lightness)
}

fn length(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn pixel(length: u32) -> i32 {
    length.cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::charts::timeline::tests::report;
    use crate::meter::Step::{Dump, Encode, Upload};

    #[test]
    fn a_timeline_has_a_bar_for_each_span_and_a_name_for_each_row() {
        let report = report(&[
            (
                "shop",
                &[
                    (Dump, 0, 0.0, 1.0),
                    (Encode, 0, 0.5, 1.5),
                    (Upload, 0, 1.0, 2.5),
                ],
            ),
            (
                "a <b> & \"c\"",
                &[
                    (Dump, 0, 1.0, 2.0),
                    (Encode, 0, 1.5, 2.6),
                    (Upload, 1, 2.0, 3.4),
                ],
            ),
        ]);
        let svg = svg(&report).unwrap();
        assert!(
            svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"),
            "{svg}"
        );
        for name in [
            "dump 1",
            "archive 1",
            "upload 1",
            "upload 2",
            "shop",
            "1970-01-01 00:00:00 UTC: 2 databases streamed in 3.5 s",
            "<title>shop, dump 1: 1.0 s from 0.0 s on</title>",
            "<title>a &lt;b&gt; &amp; &quot;c&quot;, upload 2: 1.4 s from 2.0 s on</title>",
        ] {
            assert!(svg.contains(name), "no {name} in {svg}");
        }
        // The background, six spans, two swatches.
        assert_eq!(svg.matches("<rect").count(), 9, "{svg}");
        assert!(svg.contains("a &lt;b&gt; &amp;"), "{svg}");
        // Whoever cannot tell 40 colours apart reads the letters.
        for letter in ["A shop", "B a &lt;b&gt;", "\nA\n", "\nB\n"] {
            assert!(svg.contains(letter), "no {letter:?} in {svg}");
        }
        let page = html(&report).unwrap();
        assert!(
            page.contains(&svg) && page.contains("<th>a &lt;b&gt; &amp; &quot;c&quot;<td>stored")
        );
    }

    #[test]
    fn a_run_without_spans_and_one_with_many_databases_can_be_drawn() {
        assert!(svg(&report(&[])).unwrap().starts_with("<svg"));
        let names: Vec<String> = (0..300).map(|n| format!("database {n}")).collect();
        let jobs: Vec<_> = names
            .iter()
            .map(|name| (name.as_str(), &[(Dump, 0, 0.0, 90_000.0)][..]))
            .collect();
        assert!(svg(&report(&jobs)).unwrap().contains("database 299"));
    }
}
