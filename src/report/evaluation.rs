//! How good a classifier is, as sections of a page.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::confusion;
use super::page::{Page, address, escape, percent_or_dash, table};
use super::plot::{Axis, Plot, Series, Shape, Unit};
use super::thumbnails::Thumbnails;
use crate::format::{count, percent};
use crate::predict::{ClassScore, Evaluation};

/// Photos of the list of those that are likely labelled wrongly.
const MOST_SUSPECTS: usize = 48;

/// Accuracies that a person may want to have.
const WANTED: [f64; 5] = [0.8, 0.9, 0.95, 0.98, 0.99];

/// An evaluation with what happened besides.
#[derive(Debug, Clone, Copy)]
pub struct Judgement<'a> {
    pub evaluation: &'a Evaluation,
    /// Photos that could not be read, and why.
    pub skipped: &'a [(PathBuf, String)],
    /// Classes that the model does not know, with their photos.
    pub unknown: &'a BTreeMap<String, usize>,
}

/// Photos by the shortest name that tells them apart: below the folder that all lie in.
pub struct Names(PathBuf);

impl Names {
    fn new(evaluation: &Evaluation) -> Self {
        let mut folders = evaluation.judged.iter().filter_map(|judged| judged.path.parent());
        let first = folders.next().unwrap_or(Path::new("")).to_owned();
        let shared = |one: PathBuf, other: &Path| {
            let same = one.components().zip(other.components()).take_while(|(one, other)| one == other);
            same.map(|(component, _)| component).collect()
        };
        Self(folders.fold(first, shared))
    }

    /// As a link.
    fn link(&self, path: &Path) -> String {
        let name = path.strip_prefix(&self.0).unwrap_or(path).to_string_lossy();
        format!("<a href=\"{}\">{}</a>", address(path), escape(&name))
    }
}

/// A page about a model's answers to some photos.
pub fn evaluation_page(title: &str, lead: &str, judgement: &Judgement, thumbnails: &Thumbnails) -> Page {
    let mut page = Page::new(title, lead);
    page.add(&figures(judgement.evaluation));
    add(&mut page, judgement, thumbnails);
    page
}

/// Adds the sections of an evaluation.
pub fn add(page: &mut Page, judgement: &Judgement, thumbnails: &Thumbnails) {
    let evaluation = judgement.evaluation;
    let names = Names::new(evaluation);
    page.style(&thumbnails.rules);
    page.section("classes", "Classes", &classes(evaluation));
    page.section("confusion", "Confusion", &confusion::html(evaluation, &names, thumbnails));
    page.section("suspects", "Likely labelled wrongly", &suspects(evaluation, &names, thumbnails));
    page.section("calibration", "Calibration", &calibration(evaluation));
    page.section("threshold", "When to answer", &thresholds(evaluation));
    if !judgement.skipped.is_empty() || !judgement.unknown.is_empty() {
        page.section("left-out", "Left out", &left_out(judgement, &names));
    }
}

/// The few numbers that come first.
pub fn figures(evaluation: &Evaluation) -> String {
    let Evaluation { photos, top1, top5, loss, calibration_error, .. } = evaluation;
    let figures = [
        ("photos", count(*photos as u64)),
        ("top-1", percent(*top1)),
        ("top-5", percent(*top5)),
        ("loss", format!("{loss:.4}")),
        ("calibration error", percent(*calibration_error)),
    ];
    let figure = |(name, value)| format!("<div><dt>{name}</dt><dd>{value}</dd></div>");
    format!("<dl class=\"figures\">{}</dl>\n", figures.map(figure).concat())
}

fn classes(evaluation: &Evaluation) -> String {
    let seen = evaluation.classes.iter().filter(|class| class.photos > 0);
    let row = |ClassScore { name, photos, precision, recall, f1 }: &ClassScore| {
        let bar = format!("<span class=\"bar\"><i style=\"--share:{:.3}\"></i></span>", f1.unwrap_or(0.0));
        let [precision, recall, f1] = [*precision, *recall, *f1].map(percent_or_dash);
        vec![escape(name), count(*photos as u64), precision, recall, f1 + &bar]
    };
    "<p class=\"note\">Precision: of the photos called so, those that are. Recall: of those that are, the ones called so. F1: \
     their harmonic mean.</p>\n"
        .to_owned()
        + &table(&["class", "photos", "precision", "recall", "F1"], seen.map(row))
}

/// A photo in a list.
pub fn photo(evaluation: &Evaluation, place: usize, names: &Names, thumbnails: &Thumbnails) -> String {
    let judged = &evaluation.judged[place];
    let name = |class: usize| escape(&evaluation.classes[class].name);
    let picture = thumbnails.html(place).unwrap_or_default();
    format!(
        "<li>{picture}{}<br>{} called {} ({}), loss {:.2}</li>\n",
        names.link(&judged.path),
        name(judged.class),
        name(judged.predicted),
        percent(judged.confidence),
        judged.loss
    )
}

fn suspects(evaluation: &Evaluation, names: &Names, thumbnails: &Thumbnails) -> String {
    let wrong = evaluation.judged.iter().enumerate().filter(|(_, judged)| judged.rank > 0);
    let items: String =
        wrong.take(MOST_SUSPECTS).map(|(place, _)| photo(evaluation, place, names, thumbnails)).collect();
    if items.is_empty() {
        return "<p>Every photo was called what it is labelled.</p>\n".to_owned();
    }
    format!(
        "<p class=\"note\">The highest loss first: photos whose label the model finds the least likely. Either it is wrong, \
         or the label is.</p>\n<ol class=\"photos\">\n{items}</ol>\n"
    )
}

fn calibration(evaluation: &Evaluation) -> String {
    let share = |label| Axis::new(label, Unit::Share).with_range(0.0, 1.0);
    let bins = evaluation.calibration.len().max(1) as f64;
    let filled = evaluation.calibration.iter().enumerate().filter(|(_, bin)| bin.photos > 0);
    let bars = filled.clone().map(|(index, bin)| ((index as f64 + 0.5) / bins, bin.accuracy)).collect();
    let means = filled.clone().map(|(_, bin)| (bin.confidence, bin.accuracy)).collect();
    let series = |name, color, shape, points| Series { name, color, shape, points };
    let plot = Plot {
        title: "Accuracy by confidence",
        x: share("confidence"),
        y: share("accuracy"),
        series: vec![
            series("accuracy of the bin", 0, Shape::Bars(0.96 / bins), bars),
            series("at the bin's mean confidence", 1, Shape::Dots, means),
            series("as sure as right", 4, Shape::Dashed, vec![(0.0, 0.0), (1.0, 1.0)]),
        ],
        marks: Vec::new(),
    };
    let row = |(index, bin): (usize, &crate::predict::Bin)| {
        let range = format!("{:.0}–{:.0} %", 100.0 * index as f64 / bins, 100.0 * (index + 1) as f64 / bins);
        vec![range, count(bin.photos as u64), percent(bin.confidence), percent(bin.accuracy)]
    };
    format!(
        "<p class=\"note\">Of photos answered with a confidence of 80 %, 80 % should be right. The expected calibration error \
         is the mean distance from that, weighted by photos, over {bins:.0} bins of equal width (Guo et al. 2017, “On \
         calibration of modern neural networks”): {}.</p>\n<div class=\"plots\">{}{}</div>\n",
        percent(evaluation.calibration_error),
        plot.figure(),
        table(&["confidence", "photos", "mean confidence", "accuracy"], filled.map(row))
    )
}

fn thresholds(evaluation: &Evaluation) -> String {
    let points = &evaluation.thresholds;
    let share = |label| Axis::new(label, Unit::Share).with_range(0.0, 1.0);
    let answered = points.iter().map(|point| (point.threshold, point.answered)).collect();
    let accuracy = points.iter().filter_map(|point| Some((point.threshold, point.accuracy?))).collect();
    let plot = Plot {
        title: "Answers and their accuracy by threshold",
        x: share("least confidence of an answer"),
        y: share("share"),
        series: vec![
            Series { name: "photos answered", color: 0, shape: Shape::Line, points: answered },
            Series { name: "accuracy of the answers", color: 2, shape: Shape::Line, points: accuracy },
        ],
        marks: Vec::new(),
    };
    let row = |wanted: f64| {
        let wish = format!("{:.0} %", 100.0 * wanted);
        match evaluation.threshold_for(wanted) {
            Some(point) => {
                let threshold = format!("{:.2}", point.threshold);
                vec![wish, threshold, percent(point.answered), percent_or_dash(point.accuracy)]
            }
            None => vec![wish, "–".to_owned(), "–".to_owned(), "–".to_owned()],
        }
    };
    format!(
        "<p class=\"note\">Calling photos below a confidence “unsure” makes the answers that remain better: \
         <code>galley classify --threshold X</code>.</p>\n<div class=\"plots\">{}{}</div>\n",
        plot.figure(),
        table(&["to be right in", "threshold", "answered", "accuracy"], WANTED.map(row))
    )
}

fn left_out(judgement: &Judgement, names: &Names) -> String {
    let mut text = String::new();
    if !judgement.unknown.is_empty() {
        text += "<p>Classes that the model does not know:</p>\n";
        let row = |(class, photos): (&String, &usize)| vec![escape(class), count(*photos as u64)];
        text += &table(&["class", "photos"], judgement.unknown.iter().map(row));
    }
    if !judgement.skipped.is_empty() {
        text += "<p>Photos that could not be read:</p>\n<ul class=\"paths\">\n";
        for (path, reason) in judgement.skipped {
            text += &format!("<li>{}: {}</li>\n", names.link(path), escape(reason));
        }
        text += "</ul>\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predict::Answer;
    use crate::worker::JobContext;

    #[test]
    fn a_page_shows_the_evaluations_numbers_and_strangers_names_as_text() {
        let answer = |path: &str, class, logits: [f32; 2]| Answer { path: path.into(), class, logits: logits.to_vec() };
        let answers = vec![
            answer("/photos/a/<i>1.jpg", 0, [2.0, 0.0]),
            answer("/photos/b/2.jpg", 1, [3.0, 0.0]),
            answer("/photos/b/3.jpg", 1, [0.0, 1.0]),
        ];
        let evaluation = Evaluation::new(answers, &["<script>a</script>", "b&c"]);
        let skipped = [(PathBuf::from("/photos/b/<u>.jpg"), "<s>".to_owned())];
        let judgement = Judgement { evaluation: &evaluation, skipped: &skipped, unknown: &BTreeMap::new() };
        let thumbnails = Thumbnails::of(&evaluation, &JobContext::detached()).unwrap();
        let html = evaluation_page("title", "lead", &judgement, &thumbnails).html();
        for stranger in ["<script", "<i>1", "<u>", "<s>"] {
            assert!(!html.contains(stranger), "{stranger}");
        }
        for text in ["66.7 %", "b&amp;c", "a/&lt;i&gt;1.jpg", &percent(evaluation.calibration_error)] {
            assert!(html.contains(text), "{text}");
        }
        // Each number of the matrix leads to its photos.
        for cell in ["cell-0-0", "cell-1-0", "cell-1-1"] {
            assert!(html.contains(&format!("href=\"#{cell}\"")) && html.contains(&format!("id=\"{cell}\"")), "{cell}");
        }
        assert!(!html.contains("cell-0-1"));
        // Nothing comes from elsewhere.
        assert!(!html.contains("http:") && !html.contains("https:") && !html.contains("src="));
    }

    #[test]
    fn an_empty_evaluation_has_a_page_too() {
        let evaluation = Evaluation::new(Vec::new(), &["a"]);
        let judgement = Judgement { evaluation: &evaluation, skipped: &[], unknown: &BTreeMap::new() };
        let html = evaluation_page("title", "lead", &judgement, &Thumbnails::default()).html();
        assert!(!html.contains("NaN"));
    }
}
