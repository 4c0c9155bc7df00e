//! What a smaller model is and what it cost, as a page.

use std::path::Path;

use super::page::{Page, address, escape, percent_or_dash, table};
use super::thumbnails::Thumbnails;
use crate::compress::quantize::BlockNoise;
use crate::compress::{ChangedPhoto, Figures, Proof, Report};
use crate::format::{bytes, count, counted, percent};
use crate::worker::{Canceled, JobContext};

/// Photos of the list of those whose answer changed.
const MOST_CHANGED: usize = 48;

/// Reads the photos whose answer changed.
pub fn compression_page(report: &Report, ctx: &JobContext) -> Result<Page, Canceled> {
    let lead = format!("{} of {}: {}", report.network, report.source, report.steps.join(", then "));
    let mut page = Page::new("A smaller model", &lead);
    page.add(&figures(report));
    if let Some(proof) = &report.proof {
        let changed = proof.changed.iter().take(MOST_CHANGED);
        let thumbnails = Thumbnails::of_paths(changed.map(|photo| photo.path.as_path()).enumerate(), ctx)?;
        page.style(&thumbnails.rules);
        page.section("answers", "Answers", &answers(proof));
        if !proof.classes.is_empty() {
            page.section("classes", "Classes", &classes(proof));
        }
        page.section("changed", "Photos whose answer changed", &changed_photos(proof, &thumbnails));
    }
    page.section("blocks", "Blocks", &blocks(&report.blocks));
    page.section("notes", "Notes", &notes(report));
    Ok(page)
}

fn figures(report: &Report) -> String {
    let speed = |figures: &Figures| figures.photos_per_second.map_or("–".to_owned(), |speed| format!("{speed:.1}"));
    let row = |name: &str, of: &dyn Fn(&Figures) -> String| vec![escape(name), of(&report.before), of(&report.after)];
    let rows = [
        row("file", &|figures| bytes(figures.file_bytes)),
        row("weights in memory", &|figures| bytes(figures.resident_bytes)),
        row("parameters", &|figures| count(figures.parameters)),
        row("photos per second", &speed),
    ];
    table(&["", "before", "after"], rows)
}

fn answers(proof: &Proof) -> String {
    let share = |photos: usize| percent(photos as f64 / proof.photos.max(1) as f64);
    let right = proof.right.map_or_else(String::new, |[before, after]| {
        format!(
            "{before} of them ({}) were judged right before, and {after} ({}) are now. ",
            share(before),
            share(after)
        )
    });
    let photos = counted(proof.photos as u64, "photo");
    let folder = escape(&proof.folder.display().to_string());
    let same = format!("{} keep their answer ({}).", count(proof.same as u64), percent(proof.agreement()));
    let skipped = match proof.skipped.len() {
        0 => String::new(),
        some => format!(" {} could not be read.", counted(some as u64, "photo")),
    };
    format!("<p>{photos} of {folder}. {right}{same}{skipped}</p>\n")
}

fn classes(proof: &Proof) -> String {
    let rows = proof.classes.iter().map(|class| {
        let [before, after] = class.right;
        let change = after as i64 - before as i64;
        let change = if change == 0 { "–".to_owned() } else { format!("{change:+}").replace('-', "−") };
        vec![escape(&class.name), count(class.photos as u64), before.to_string(), after.to_string(), change]
    });
    table(&["class", "photos", "right before", "right after", "change"], rows)
}

fn changed_photos(proof: &Proof, thumbnails: &Thumbnails) -> String {
    if proof.changed.is_empty() {
        return "<p>None.</p>\n".to_owned();
    }
    let folder = &proof.folder;
    let shown = proof.changed.iter().take(MOST_CHANGED).enumerate();
    let items: String = shown.map(|(place, photo)| changed(photo, folder, thumbnails.html(place))).collect();
    let more = match proof.changed.len().saturating_sub(MOST_CHANGED) {
        0 => String::new(),
        more => format!("<p class=\"note\">And {more} more, which the report's JSON names.</p>\n"),
    };
    format!(
        "<p class=\"note\">Those first whose answer was surest before.</p>\n<ol class=\"photos\">\n{items}</ol>\n{more}"
    )
}

fn changed(photo: &ChangedPhoto, folder: &Path, picture: Option<String>) -> String {
    let ChangedPhoto { path, class, answers } = photo;
    let name = path.strip_prefix(folder).unwrap_or(path).to_string_lossy();
    let truth = class.as_ref().map_or_else(String::new, |class| format!(", truly {}", escape(class)));
    let [before, after] =
        answers.each_ref().map(|(label, share)| format!("{} ({})", escape(label), percent(f64::from(*share))));
    format!(
        "<li>{}<a href=\"{}\">{}</a>{truth}<br>{before} before, {after} now</li>\n",
        picture.unwrap_or_default(),
        address(path),
        escape(&name)
    )
}

fn blocks(blocks: &[BlockNoise]) -> String {
    let rows = blocks.iter().map(|block| {
        let [before, after] = block.bytes.map(bytes);
        let decibels = block.decibels.map_or("–".to_owned(), |decibels| format!("{decibels:.1} dB"));
        vec![escape(&block.name), escape(&block.types.join(", ")), before, after, decibels]
    });
    "<p class=\"note\">Signal to noise: mean squares of the weights over those of what rounding took from them. Ten decibels \
     less are a noise ten times as strong. A dash: nothing was rounded to blocks.</p>\n"
        .to_owned()
        + &table(&["block", "stored in", "as f32", "stored", "signal to noise"], rows)
}

fn notes(report: &Report) -> String {
    let state = match report.training_state_bytes {
        0 => None,
        state => Some(format!(
            "{} of the original's file are what training alone needs ({}): leaving that out costs nothing",
            bytes(state),
            percent_or_dash(Some(state as f64 / report.before.file_bytes.max(1) as f64))
        )),
    };
    let calibration = match report.calibration_photos {
        0 => "Weights were rounded without looking at photos".to_owned(),
        photos => format!(
            "{} decided how weights are rounded; their classes were not looked at",
            counted(photos as u64, "photo")
        ),
    };
    let source = format!("SHA-256 of the original: {}", report.source_sha256);
    let lines = state.into_iter().chain([calibration, source]).chain(report.notices.iter().cloned());
    let items: String = lines.map(|line| format!("<li>{}</li>\n", escape(&line))).collect();
    format!("<ul>\n{items}</ul>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_shows_the_reports_numbers_and_strangers_names_as_text() {
        let figures =
            |file_bytes| Figures { parameters: 1234, file_bytes, resident_bytes: 5_000, photos_per_second: None };
        let changed = ChangedPhoto {
            path: "/photos/<i>1.jpg".into(),
            class: Some("b&c".to_owned()),
            answers: [("<s>".to_owned(), 0.75), ("b&c".to_owned(), 0.5)],
        };
        let proof = Proof {
            folder: "/photos".into(),
            photos: 40,
            right: Some([30, 29]),
            same: 39,
            classes: vec![],
            changed: vec![changed],
            skipped: vec![],
        };
        let block = BlockNoise {
            name: "stem".to_owned(),
            types: vec!["q8_0".to_owned()],
            bytes: [4_000, 1_062],
            decibels: Some(41.23),
        };
        let report = Report {
            network: "ConvNeXt <u>".to_owned(),
            source: "food.pth".to_owned(),
            source_sha256: "00ff".to_owned(),
            output: "food.gguf".into(),
            steps: vec!["all weights in q8_0".to_owned()],
            before: figures(1_000_000_000),
            after: figures(90_000_000),
            training_state_bytes: 700_000_000,
            calibration_photos: 0,
            blocks: vec![block],
            proof: Some(proof),
            notices: vec![],
        };
        let html = compression_page(&report, &JobContext::detached()).unwrap().html();
        for stranger in ["<u>", "<i>1", "<s>"] {
            assert!(!html.contains(stranger), "{stranger}");
        }
        for text in
            ["1,234", "700 MB", "70.0 %", "41.2 dB", "97.5 %", "29 (72.5 %)", "truly b&amp;c", "&lt;s&gt; (75.0 %)"]
        {
            assert!(html.contains(text), "{text}");
        }
    }
}
