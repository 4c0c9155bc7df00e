//! Arranges a run in the memory before anything of it is written: lays it out, or says what would fit.

use super::plan::{Forecast, Intake, MemoryPlan, TeacherCost, may_keep};
use super::solve::{Layout, Layouts};
use crate::device::{self, Chosen};
use crate::format::{self, counted};
use crate::jobs::admission::{DoesNotFit, MemoryChoice, Remedy};
use crate::jobs::models::Models;
use crate::memory::guard;
use crate::memory::{Allowance, Budget, Calibration, Place, Reading};
use crate::models::{self, Architecture};
use crate::train::{Recompute, TrainConfig, Unfreeze};
use crate::worker::BoxError;

/// Sides of photos are tried in steps of the largest stride of any network.
const SIDE_STEP: usize = 32;

/// How a run would be laid out.
pub(super) struct LaidOut {
    pub layout: Layout,
    pub plan: MemoryPlan,
    pub fits: bool,
    /// What was chosen and why, if it is not what was asked for.
    pub sentence: Option<String>,
}

/// The fastest layout that takes at most `room` bytes, or the leanest. `budget` is for the sentence.
pub(super) fn lay_out(config: &TrainConfig, forecast: &Forecast, intake: Intake, room: u64, budget: u64) -> LaidOut {
    let kept = forecast.kept(config, intake.side);
    let layouts = Layouts {
        config,
        kept: &kept,
        first: forecast.first,
        has_batch_norms: forecast.has_batch_norms(),
        bytes: &|layout| forecast.in_layout(config, layout, intake).bytes(),
    };
    let fastest = layouts.fastest(room);
    let fits = fastest.is_some();
    let layout = fastest.unwrap_or_else(|| layouts.leanest());
    let sentence = layouts.sentence(&layout, budget).filter(|_| fits);
    LaidOut { plan: forecast.in_layout(config, &layout, intake), layout, fits, sentence }
}

/// What was known of the memory before a run took any of it.
pub(super) struct Before {
    pub reading: Reading,
    pub choice: MemoryChoice,
    /// Of runs like this one.
    pub calibration: Option<Calibration>,
}

impl Before {
    fn budget(&self, chosen: &Chosen) -> Option<Budget> {
        let device = device::memory(&chosen.device);
        let device_free = device.map(|memory| memory.recommended.saturating_sub(memory.allocated));
        self.choice.allowance().budget(&self.reading, device_free)
    }

    /// The peak of the process with a plan of so many bytes, given what is known of runs like this one.
    fn peak(&self, plan: u64) -> u64 {
        let corrected = self.calibration.map_or(plan, |calibration| calibration.corrected(plan));
        self.reading.footprint.unwrap_or(0) + corrected
    }

    /// The bytes of the plan with which the peak is `budget`.
    fn room(&self, budget: u64) -> u64 {
        let free = budget.saturating_sub(self.reading.footprint.unwrap_or(0));
        self.calibration.map_or(free, |calibration| (free as f64 / calibration.factor) as u64)
    }
}

/// A run to be arranged.
pub(super) struct Asked<'a> {
    pub config: &'a TrainConfig,
    /// With the run's classes.
    pub architecture: &'a Architecture,
    pub side: usize,
    /// To train on and to validate with.
    pub photos: usize,
    /// What its teacher takes, if it has one.
    pub teacher: Option<TeacherCost>,
    pub before: &'a Before,
    pub chosen: &'a Chosen,
}

pub(super) struct Arranged {
    pub layout: Layout,
    pub plan: MemoryPlan,
    /// The first block that learns, the elements that do, and whether batch norms are among them.
    pub first: usize,
    pub parameters: u64,
    pub has_batch_norms: bool,
    pub keeps_features: bool,
    /// Whether with more memory it would be laid out in a faster way.
    pub is_squeezed: bool,
    /// What a guard holds the run to; none when it runs in spite of the prediction.
    pub allowance: Option<Allowance>,
    /// Bytes that the budget has beside the plan; all there are when nothing bounds the run.
    pub left: u64,
    /// What a person should know.
    pub notices: Vec<String>,
}

pub(super) enum Answer {
    Runs(Box<Arranged>),
    /// With photos of this side, if they may be smaller.
    WithSmaller(u32),
}

/// What `arrange` answers in the memory there is now, which `before` reads; where that is little, after idle models were
/// unloaded.
pub(super) fn arranged_in(
    models: &Models,
    before: impl Fn() -> Before,
    arrange: impl Fn(&Before) -> Result<Answer, BoxError>,
) -> Result<(Answer, Reading), BoxError> {
    let now = before();
    let answer = arrange(&now);
    let is_roomy = matches!(&answer, Ok(Answer::Runs(arranged)) if !arranged.is_squeezed);
    if is_roomy || !models.make_room() {
        return Ok((answer?, now.reading));
    }
    let now = before();
    Ok((arrange(&now)?, now.reading))
}

impl Asked<'_> {
    /// Fails with [`DoesNotFit`] unless the run fits, or is to go on anyway.
    pub fn arrange(&self) -> Result<Answer, BoxError> {
        let Self { config, architecture, side, photos, teacher, before, chosen } = *self;
        let first = config.unfreeze.first(architecture.block_names()?.len());
        let forecast = Forecast::new(architecture, first, side, place(chosen))?.taught_by(teacher);
        let budget = before.budget(chosen);
        let room = budget.map_or(u64::MAX, |budget| before.room(budget.bytes));
        let of_features = forecast.feature_bytes(config, side) * photos as u64;
        let keeps_features = may_keep(of_features, room);
        let mut notices: Vec<String> = about_features(config, first, of_features, keeps_features).into_iter().collect();
        let intake = Intake::of(side, photos, if keeps_features { of_features } else { 0 });
        let bytes_of_budget = budget.map_or(0, |budget| budget.bytes);
        // Where a guard finds nothing to do, if it can be had.
        let near = budget.map_or(u64::MAX, |budget| before.room((guard::NEAR * budget.bytes as f64) as u64));
        let mut out = lay_out(config, &forecast, intake, near, bytes_of_budget);
        if !out.fits {
            out = lay_out(config, &forecast, intake, room, bytes_of_budget);
        }
        let mut allowance = Some(before.choice.allowance());
        let mut left = if budget.is_some() { room.saturating_sub(out.plan.bytes()) } else { u64::MAX };
        if let (false, Some(budget)) = (out.fits, budget) {
            let search = Search { asked: self, forecast: &forecast, intake, room };
            if let (true, Some((side, _))) = (config.may_shrink_images, search.smaller_side()) {
                return Ok(Answer::WithSmaller(side));
            }
            let refused = DoesNotFit { predicted: before.peak(out.plan.bytes()), budget, remedies: search.remedies() };
            if !before.choice.anyway {
                return Err(refused.into());
            }
            (allowance, left) = (None, u64::MAX);
            notices.push(format!("{}. It runs anyway, as you chose", refused.reason()));
        }
        let is_squeezed = !out.fits || out.sentence.is_some();
        notices.extend(out.sentence);
        Ok(Answer::Runs(Box::new(Arranged {
            layout: out.layout,
            plan: out.plan,
            first,
            parameters: forecast.parameters(),
            has_batch_norms: forecast.has_batch_norms(),
            keeps_features,
            is_squeezed,
            allowance,
            left,
            notices,
        })))
    }
}

/// A search for settings that fit where those asked for do not.
struct Search<'a> {
    asked: &'a Asked<'a>,
    forecast: &'a Forecast,
    intake: Intake,
    room: u64,
}

impl Search<'_> {
    /// The peak of the process with other settings, if it fits.
    fn with(&self, config: &TrainConfig, side: usize) -> Option<(Layout, u64)> {
        self.of(config, self.forecast, side)
    }

    fn of(&self, config: &TrainConfig, forecast: &Forecast, side: usize) -> Option<(Layout, u64)> {
        let out = lay_out(config, forecast, Intake { side, ..self.intake }, self.room, 0);
        out.fits.then(|| (out.layout, self.peak(out.plan.bytes())))
    }

    fn peak(&self, bytes: u64) -> u64 {
        self.asked.before.peak(bytes)
    }

    /// What would fit, the smallest change first.
    fn remedies(&self) -> Vec<Remedy> {
        let found =
            [self.fewer_at_once(), self.fewer_a_step(), self.smaller_images(), self.head_alone(), self.lighter()];
        found.into_iter().flatten().collect()
    }

    /// The same steps in more parts, or with blocks computed twice, where a person ruled that out.
    fn fewer_at_once(&self) -> Option<Remedy> {
        let config = self.asked.config;
        let open = TrainConfig { recompute: Recompute::Auto, ..config.clone() };
        let more_open = TrainConfig { micro_batch: None, ..open.clone() };
        let (layout, bytes) = self.with(&open, self.asked.side).or_else(|| self.with(&more_open, self.asked.side))?;
        let mut options = Vec::new();
        if layout.at_once < config.micro_batch.unwrap_or(0).min(config.batch_size) {
            options.push(format!("--micro-batch {}", layout.at_once));
        }
        if config.recompute == Recompute::None && layout.recomputed_blocks() > 0 {
            options.push("--recompute auto".to_owned());
        }
        (!options.is_empty()).then(|| Remedy { change: options.join(" "), bytes })
    }

    fn fewer_a_step(&self) -> Option<Remedy> {
        let config = self.asked.config;
        let halves = std::iter::successors(Some(config.batch_size), |size| (*size > 1).then_some(size / 2)).skip(1);
        let with = |batch_size: usize| {
            let (_, bytes) = self.with(&TrainConfig { batch_size, ..config.clone() }, self.asked.side)?;
            Some(Remedy { change: format!("--batch-size {batch_size}"), bytes })
        };
        halves.into_iter().find_map(with)
    }

    fn smaller_images(&self) -> Option<Remedy> {
        let (side, bytes) = self.smaller_side()?;
        Some(Remedy { change: format!("--image-size {side}"), bytes })
    }

    /// The largest side that fits, and the peak with it.
    fn smaller_side(&self) -> Option<(u32, u64)> {
        let Asked { config, side, .. } = self.asked;
        let sides = (1..side.div_ceil(SIDE_STEP)).rev().map(|steps| SIDE_STEP * steps);
        // Some networks take photos of one size alone.
        let mut sides = sides.filter(|side| self.forecast.takes(*side));
        sides.find_map(|side| Some((side as u32, self.with(config, side)?.1)))
    }

    fn head_alone(&self) -> Option<Remedy> {
        let Asked { config, architecture, side, teacher, chosen, .. } = self.asked;
        if config.unfreeze == Unfreeze::Head || config.arch.is_some() {
            return None;
        }
        let first = Unfreeze::Head.first(architecture.block_names().ok()?.len());
        let forecast = Forecast::new(architecture, first, *side, place(chosen)).ok()?.taught_by(*teacher);
        let (_, bytes) = self.of(config, &forecast, *side)?;
        Some(Remedy { change: "--unfreeze head".to_owned(), bytes })
    }

    /// The heaviest of the lighter networks of the family that fit.
    fn lighter(&self) -> Option<Remedy> {
        let Asked { config, architecture, side, teacher, chosen, .. } = self.asked;
        models::lighter(architecture).into_iter().find_map(|one| {
            let lighter = models::named(&one.name, architecture.classes).ok()?;
            let first = config.unfreeze.first(lighter.block_names().ok()?.len());
            let forecast = Forecast::new(&lighter, first, *side, place(chosen)).ok()?.taught_by(*teacher);
            let (_, bytes) = self.of(config, &forecast, *side)?;
            Some(Remedy { change: format!("{} ({} weights)", one.name, format::count(one.weights)), bytes })
        })
    }
}

/// Where a run computes.
fn place(chosen: &Chosen) -> Place {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    Place { is_metal: chosen.device.is_metal(), ..Place::cpu(threads) }
}

/// Fails with [`DoesNotFit`] unless steps of training on `batch` photos at once fit. `before` is of before the network.
pub fn admit_steps(
    architecture: &Architecture,
    side: usize,
    batch: usize,
    recompute: bool,
    (before, choice): (Reading, MemoryChoice),
    chosen: &Chosen,
) -> Result<(), BoxError> {
    let recompute = if recompute { Recompute::All } else { Recompute::None };
    let config = &TrainConfig {
        batch_size: batch,
        micro_batch: Some(batch),
        batches_ahead: 0,
        recompute,
        ..TrainConfig::default()
    };
    let before = &Before { reading: before, choice, calibration: None };
    Asked { config, architecture, side, photos: 0, teacher: None, before, chosen }.arrange().map(drop)
}

/// Whether epochs need the frozen blocks, as a sentence, where a person can do something about it.
fn about_features(config: &TrainConfig, frozen: usize, bytes: u64, keeps: bool) -> Option<String> {
    if keeps {
        return None;
    }
    if bytes > 0 {
        return Some(format!(
            "The frozen blocks compute every photo anew in each epoch: to keep what they make of them takes {}, more \
             than a quarter of the free memory",
            format::bytes(bytes)
        ));
    }
    (config.unfreeze == Unfreeze::Head && frozen > 0 && config.augment.changes_photos()).then(|| {
        "Photos are changed at random, so the frozen blocks compute each of them anew in every epoch; without \
         mirroring and random parts (--flip 0 --random-crop false) they do so once, and epochs take seconds"
            .to_owned()
    })
}

/// That a run goes on with less at once than it began with, if it does.
pub(super) fn about_going_on(config: &TrainConfig, at_once: Option<usize>) -> Option<String> {
    let at_once = at_once.filter(|at_once| *at_once < config.micro_batch.unwrap_or(config.batch_size))?;
    Some(format!("The run goes on with {} at once, as it was left", counted(at_once as u64, "photo")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::DeviceChoice;

    /// A process that has nothing yet and may take `limit` bytes.
    fn before(limit: u64) -> Before {
        let reading = Reading { footprint: Some(0), ..Reading::default() };
        Before { reading, choice: MemoryChoice { limit: Some(limit), anyway: false }, calibration: None }
    }

    fn network() -> Architecture {
        models::named("mobilenet_v3_small", 10).unwrap()
    }

    fn asked<'a>(
        config: &'a TrainConfig,
        architecture: &'a Architecture,
        before: &'a Before,
        chosen: &'a Chosen,
    ) -> Asked<'a> {
        Asked { config, architecture, side: 128, photos: 100, teacher: None, before, chosen }
    }

    fn refused(asked: &Asked) -> DoesNotFit {
        let Err(error) = asked.arrange() else { panic!("it fits") };
        error.downcast_ref::<DoesNotFit>().unwrap().clone()
    }

    #[test]
    fn what_fits_in_no_layout_is_refused_with_settings_that_do_fit() {
        let (network, chosen) = (network(), device::choose(DeviceChoice::Cpu).unwrap());
        let config = TrainConfig { batch_size: 64, micro_batch: Some(64), ..TrainConfig::default() };
        let least = refused(&asked(&config, &network, &before(1), &chosen)).predicted;
        let tight = before(least - least / 10);
        let refused = refused(&asked(&config, &network, &tight, &chosen));
        assert_eq!(refused.budget.bytes, least - least / 10);
        // What threads take at the same time differs from one measurement to the next.
        assert!((refused.predicted as f64 / least as f64 - 1.0).abs() < 0.06, "{refused:?} {least}");
        let changes: Vec<&str> = refused.remedies.iter().map(|remedy| remedy.change.as_str()).collect();
        assert!(refused.remedies.iter().all(|remedy| remedy.bytes <= refused.budget.bytes), "{refused:?}");
        assert!(changes[0].starts_with("--micro-batch ") && changes[1].starts_with("--batch-size "), "{changes:?}");
        assert!(changes[2].starts_with("--image-size ") && changes.contains(&"--unfreeze head"), "{changes:?}");
        // A remedy is no promise that breaks: with the first one the run is arranged.
        let micro_batch = changes[0]["--micro-batch ".len()..].split(' ').next().unwrap().parse().ok();
        let config = TrainConfig { micro_batch, ..config };
        assert!(matches!(asked(&config, &network, &tight, &chosen).arrange(), Ok(Answer::Runs(_))));
    }

    #[test]
    fn a_layout_keeps_off_what_a_guard_acts_on_where_one_can() {
        let (network, chosen) = (network(), device::choose(DeviceChoice::Cpu).unwrap());
        let config = TrainConfig { batch_size: 32, recompute: Recompute::None, ..TrainConfig::default() };
        let peak = |limit: u64, config: &TrainConfig| {
            let before = before(limit);
            let Ok(Answer::Runs(arranged)) = asked(config, &network, &before, &chosen).arrange() else { panic!() };
            before.peak(arranged.plan.bytes())
        };
        let whole = peak(1 << 40, &config);
        let limit = whole + whole / 50;
        assert!(peak(limit, &config) as f64 <= guard::NEAR * limit as f64);
        let fixed = TrainConfig { micro_batch: Some(1), batches_ahead: 0, ..config };
        let least = peak(1 << 40, &fixed);
        assert_eq!(peak(least + least / 50, &fixed), least);
    }

    #[test]
    fn photos_become_smaller_only_when_they_may_and_nothing_else_fits() {
        let (network, chosen) = (network(), device::choose(DeviceChoice::Cpu).unwrap());
        let config = TrainConfig { may_shrink_images: true, ..TrainConfig::default() };
        let fixed = TrainConfig { may_shrink_images: false, ..config.clone() };
        let least = refused(&asked(&fixed, &network, &before(1), &chosen)).predicted;
        let (enough, little) = (before(least + least / 10), before(least - least / 10));
        assert!(matches!(asked(&config, &network, &enough, &chosen).arrange(), Ok(Answer::Runs(_))));
        let answer = asked(&config, &network, &little, &chosen).arrange().unwrap();
        let Answer::WithSmaller(side) = answer else { panic!("it fits") };
        assert!(side < 128 && side.is_multiple_of(32), "{side}");
        let anyway = Before { choice: MemoryChoice { anyway: true, ..little.choice }, ..little };
        let answer = asked(&fixed, &network, &anyway, &chosen).arrange().unwrap();
        let Answer::Runs(arranged) = answer else { panic!("photos became smaller") };
        assert_eq!(arranged.allowance, None);
        assert!(arranged.notices.iter().any(|notice| notice.contains("It runs anyway")), "{:?}", arranged.notices);
    }

    #[test]
    fn what_such_runs_took_corrects_the_prediction() {
        let (network, chosen) = (network(), device::choose(DeviceChoice::Cpu).unwrap());
        let config = TrainConfig::default();
        let plain = refused(&asked(&config, &network, &before(1), &chosen)).predicted;
        let calibration = Calibration::of(&[(100, 150); 4]);
        let corrected = refused(&asked(&config, &network, &Before { calibration, ..before(1) }, &chosen)).predicted;
        assert!((corrected as f64 / plain as f64 - 1.5).abs() < 0.1, "{corrected} {plain}");
        // A budget that was enough no longer is, and one that holds the correction is.
        let with = |limit| Before { calibration, ..before(limit) };
        assert!(asked(&config, &network, &with(plain), &chosen).arrange().is_err());
        assert!(asked(&config, &network, &with(corrected + corrected / 10), &chosen).arrange().is_ok());
    }
}
