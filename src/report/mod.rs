//! Results as one page of HTML that needs nothing else: no network, no script, no file beside it.
//!
//! Plots are SVG, the worst photos are embedded small, all others are named. What is shown are the numbers that the same
//! job gives as JSON. Names of files and classes are strangers' text and are escaped.

mod compression;
mod confusion;
mod evaluation;
mod page;
mod plot;
mod run;
mod thumbnails;

pub use compression::compression_page;
pub use evaluation::{Judgement, evaluation_page};
pub use page::{Page, escape, table};
pub use plot::{Axis, Mark, Plot, Scale, Series, Shape, Unit};
pub use run::run_page;
pub use thumbnails::Thumbnails;
