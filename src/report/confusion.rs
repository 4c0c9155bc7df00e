//! Which classes are taken for which: a matrix or, of many classes, a list, and behind each cell its photos.

use std::collections::BTreeMap;

use super::evaluation::{Names, photo};
use super::page::{escape, table};
use super::thumbnails::Thumbnails;
use crate::format::{count, counted};
use crate::predict::Evaluation;

/// More classes than these are no matrix that anyone can read.
const MOST_IN_MATRIX: usize = 40;

/// Rows of the list of mistakes.
const MOST_PAIRS: usize = 10;
/// The same where there is no matrix.
const MOST_PAIRS_ALONE: usize = 200;

/// Photos behind a cell of mistakes and one of hits, and behind all cells together.
const MOST_WRONG: usize = 100;
const MOST_RIGHT: usize = 24;
const MOST_LISTED: usize = 5_000;

/// By true class and called class, places in [`Evaluation::judged`] of the photos that are listed.
type Cells = BTreeMap<(usize, usize), Vec<usize>>;

pub fn html(evaluation: &Evaluation, names: &Names, thumbnails: &Thumbnails) -> String {
    let shown = evaluation.seen();
    let has_matrix = shown.len() <= MOST_IN_MATRIX;
    let pairs = pairs(evaluation, if has_matrix { MOST_PAIRS } else { MOST_PAIRS_ALONE });
    let mut cells = cells(evaluation);
    if !has_matrix {
        cells.retain(|cell, _| pairs.contains(cell));
    }
    let mut text =
        "<p class=\"note\">A row is what the photos are, a column what they were called. A click on a number shows \
                    its photos.</p>\n"
            .to_owned();
    if has_matrix {
        text += &matrix(evaluation, &shown);
    }
    if !pairs.is_empty() {
        text += "<h3>Most often mistaken</h3>\n";
        let row = |&(class, called): &(usize, usize)| {
            let name = |class: usize| escape(&evaluation.classes[class].name);
            let photos = evaluation.confusion[class][called];
            let link = format!("<a href=\"#{}\">{}</a>", id(class, called), count(photos as u64));
            vec![name(class), name(called), link]
        };
        let rows = table(&["class", "called", "photos"], pairs.iter().map(row));
        text += &format!("<div class=\"pairs\">{rows}</div>\n");
    }
    let sheets = cells.iter().map(|(cell, places)| sheet(evaluation, *cell, places, names, thumbnails));
    text + &sheets.collect::<String>()
}

fn id(class: usize, called: usize) -> String {
    format!("cell-{class}-{called}")
}

/// The classes most often taken for another, with that other.
fn pairs(evaluation: &Evaluation, most: usize) -> Vec<(usize, usize)> {
    let mut pairs = evaluation.mistakes();
    pairs.truncate(most);
    pairs.into_iter().map(|(class, called, _)| (class, called)).collect()
}

/// The photos with the highest loss first, as many as may be listed.
fn cells(evaluation: &Evaluation) -> Cells {
    let mut cells = Cells::new();
    let mut listed = 0;
    for (place, judged) in evaluation.judged.iter().enumerate() {
        let cell = cells.entry((judged.class, judged.predicted)).or_default();
        let most = if judged.class == judged.predicted { MOST_RIGHT } else { MOST_WRONG };
        if cell.len() < most && listed < MOST_LISTED {
            cell.push(place);
            listed += 1;
        }
    }
    cells
}

fn matrix(evaluation: &Evaluation, shown: &[usize]) -> String {
    let name = |class: &usize| escape(&evaluation.classes[*class].name);
    let headings: String =
        shown.iter().map(|class| format!("<th title=\"{0}\"><span>{0}</span></th>", name(class))).collect();
    let row = |class: &usize| {
        let photos = evaluation.classes[*class].photos;
        let cell = |called: &usize| match evaluation.confusion[*class][*called] {
            0 => "<td></td>".to_owned(),
            number => format!(
                "<td{}><a href=\"#{}\" style=\"--share:{:.3}\" title=\"{} called {}\">{}</a></td>",
                if class == called { " class=\"hit\"" } else { "" },
                id(*class, *called),
                number as f64 / photos.max(1) as f64,
                name(class),
                name(called),
                count(number as u64)
            ),
        };
        format!("<tr><th title=\"{0}\">{0}</th>{1}</tr>\n", name(class), shown.iter().map(cell).collect::<String>())
    };
    let rows: String = shown.iter().map(row).collect();
    format!(
        "<div class=\"wide\"><table class=\"matrix\">\n<thead><tr><th></th>{headings}</tr></thead>\n<tbody>\n{rows}\
         </tbody>\n</table></div>\n"
    )
}

/// The photos of one cell, hidden until somebody asks for them.
fn sheet(
    evaluation: &Evaluation,
    (class, called): (usize, usize),
    places: &[usize],
    names: &Names,
    thumbnails: &Thumbnails,
) -> String {
    let name = |class: usize| escape(&evaluation.classes[class].name);
    let photos = evaluation.confusion[class][called];
    let heading = match class == called {
        true => format!("{} of {}, rightly called so", counted(photos as u64, "photo"), name(class)),
        false => format!("{} of {} called {}", counted(photos as u64, "photo"), name(class), name(called)),
    };
    let items: String = places.iter().map(|place| photo(evaluation, *place, names, thumbnails)).collect();
    let more = match photos - places.len() {
        0 => String::new(),
        more => format!("<p class=\"note\">And {} with a lower loss.</p>\n", count(more as u64)),
    };
    format!(
        "<div class=\"cell\" id=\"{}\"><a class=\"close\" href=\"#confusion\" title=\"Close\">×</a>\n<h3>{heading}</h3>\n\
         <ol class=\"paths\">\n{items}</ol>\n{more}</div>\n",
        id(class, called)
    )
}
