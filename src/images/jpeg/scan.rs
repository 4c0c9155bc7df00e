//! One scan of a JPEG: its header, and the coefficients of its blocks, sequential or progressive (ITU-T T.81, F.2
//! and G.2).

use super::component::{Channel, Coefficients, NATURAL};
use super::entropy::{Bits, Huffman};
use super::header::{self, Frame, Segment};
use crate::images::{ImageError, vectorized};

/// Which tables a channel of the scan uses.
#[derive(Debug, Clone, Copy)]
pub struct ScanChannel {
    pub channel: usize,
    dc: usize,
    ac: usize,
}

/// The scan header.
#[derive(Debug)]
pub struct Scan {
    pub channels: Vec<ScanChannel>,
    /// First and last coefficient, in zigzag order.
    pub first: usize,
    last: usize,
    /// Progressive: whether a finer bit is added to what earlier scans gave, and which bit.
    refines: bool,
    shift: u32,
}

impl Scan {
    pub fn from_segment(segment: &Segment, frame: &Frame) -> Result<Self, ImageError> {
        let wrong = || ImageError::damaged("a JPEG scan header is impossible");
        let (count, rest) = segment.payload.split_first().ok_or_else(wrong)?;
        let (specs, [first, last, bits]) = rest.split_at_checked(usize::from(*count) * 2).ok_or_else(wrong)? else {
            return Err(wrong());
        };
        let mut channels = Vec::new();
        for spec in specs.chunks_exact(2) {
            let channel = frame.components.iter().position(|component| component.id == spec[0]).ok_or_else(wrong)?;
            if channels.iter().any(|known: &ScanChannel| known.channel == channel) {
                return Err(wrong());
            }
            channels.push(ScanChannel { channel, dc: usize::from(spec[1] >> 4), ac: usize::from(spec[1] & 15) });
        }
        let (first, last, refines, shift) = if frame.progressive {
            (usize::from(*first), usize::from(*last), bits >> 4 != 0, u32::from(bits & 15))
        } else {
            (0, 63, false, 0)
        };
        let one_band = if first == 0 { last == 0 || !frame.progressive } else { channels.len() == 1 };
        if channels.is_empty() || first > last || last > 63 || shift > 13 || !one_band {
            return Err(wrong());
        }
        Ok(Self { channels, first, last, refines, shift })
    }
}

/// Huffman tables by number, and how often the coding begins anew.
#[derive(Default)]
pub struct Tables {
    pub dc: [Option<Huffman>; 4],
    pub ac: [Option<Huffman>; 4],
    pub restart_interval: usize,
}

/// Where the coefficients of a scan go: straight to pixels, or kept until the last scan.
pub enum Target<'a> {
    Pixels,
    Kept(&'a mut [Coefficients]),
}

/// How a scan went wrong, and after how many of its units.
pub enum Fault {
    CutShort { done: usize, of: usize },
    Damaged { done: usize, of: usize },
}

impl Bits<'_> {
    /// Why the data ends here: nothing but the end of the picture follows, or it goes on with something else.
    fn fault(&mut self, done: usize, of: usize) -> Fault {
        match self.next_marker() {
            None | Some(header::EOI) => Fault::CutShort { done, of },
            Some(_) => Fault::Damaged { done, of },
        }
    }
}

/// A code that no table has, or a value out of range.
struct Nonsense;

struct State {
    predictors: [i32; 4],
    /// How many more blocks have no further coefficients in this band.
    end_of_band_run: u32,
}

/// Decodes the scan from `data` and gives the place behind it.
pub fn decode(
    data: &[u8],
    scan: &Scan,
    tables: &Tables,
    channels: &mut [Channel],
    target: Target,
    mcus: (usize, usize),
) -> Result<usize, Fault> {
    let (across, down) = match scan.channels.as_slice() {
        [only] => (channels[only.channel].geometry.own_across, channels[only.channel].geometry.own_down),
        _ => mcus,
    };
    let state = State { predictors: [0; 4], end_of_band_run: 0 };
    let mut reader = Reader { bits: Bits::new(data), scan, tables, channels, target, state, across, of: across * down };
    for y in 0..down {
        vectorized(
            #[inline(always)]
            || reader.row(y),
        )?;
    }
    Ok(reader.bits.end())
}

/// A scan while it is read.
struct Reader<'a, 'b> {
    bits: Bits<'a>,
    scan: &'a Scan,
    tables: &'a Tables,
    channels: &'a mut [Channel],
    target: Target<'b>,
    state: State,
    /// Units in a row, and in all.
    across: usize,
    of: usize,
}

impl Reader<'_, '_> {
    #[inline(always)]
    fn row(&mut self, unit_y: usize) -> Result<(), Fault> {
        for unit_x in 0..self.across {
            self.unit(unit_x, unit_y)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn unit(&mut self, unit_x: usize, unit_y: usize) -> Result<(), Fault> {
        let (scan, of) = (self.scan, self.of);
        let done = unit_y * self.across + unit_x;
        if self.tables.restart_interval > 0 && done > 0 && done.is_multiple_of(self.tables.restart_interval) {
            self.restart(done)?;
        }
        for member in &scan.channels {
            let component = self.channels[member.channel].component;
            let (wide, high) =
                if scan.channels.len() == 1 { (1, 1) } else { (component.horizontal, component.vertical) };
            for part in 0..wide * high {
                let decoded = self.block(member, unit_x * wide + part % wide, unit_y * high + part / wide);
                if self.bits.is_overrun() {
                    return Err(self.bits.fault(done, of));
                }
                decoded.map_err(|Nonsense| Fault::Damaged { done, of })?;
            }
        }
        Ok(())
    }

    fn restart(&mut self, done: usize) -> Result<(), Fault> {
        let number = ((done / self.tables.restart_interval - 1) % 8) as u8;
        if !self.bits.restart(number) {
            return Err(self.bits.fault(done, self.of));
        }
        self.state = State { predictors: [0; 4], end_of_band_run: 0 };
        Ok(())
    }

    #[inline(always)]
    fn block(&mut self, member: &ScanChannel, x: usize, y: usize) -> Result<(), Nonsense> {
        let channel = &mut self.channels[member.channel];
        match &mut self.target {
            Target::Pixels => {
                let predictor = &mut self.state.predictors[member.channel];
                let mut coefficients = [0; 64];
                let mut bits = self.bits;
                let decoded = sequential(&mut bits, self.tables, member, predictor, channel, &mut coefficients);
                self.bits = bits;
                if decoded.is_ok() {
                    channel.write_block(x, y, &coefficients);
                }
                decoded
            }
            Target::Kept(kept) => {
                let block = y * channel.geometry.blocks_across + x;
                let (state, kept) = (&mut self.state, &mut kept[member.channel]);
                progressive(&mut self.bits, self.scan, self.tables, member, state, kept, block)
            }
        }
    }
}

/// The coefficients of one block of a sequential scan, dequantized, in rows of 8: those the channel's scale needs, and
/// perhaps others.
#[inline(always)]
fn sequential(
    bits: &mut Bits,
    tables: &Tables,
    member: &ScanChannel,
    predictor: &mut i32,
    channel: &Channel,
    coefficients: &mut [i32; 64],
) -> Result<(), Nonsense> {
    let (dc, ac) = (table(&tables.dc, member.dc)?, table(&tables.ac, member.ac)?);
    let quantization = channel.quantization.as_ref().ok_or(Nonsense)?;
    coefficients[0] = constant(bits, dc, predictor)?.wrapping_mul(quantization[0]);
    let mut at = 1;
    while at <= channel.last_needed {
        let code = ac.peek(bits).ok_or(Nonsense)?;
        at += code.run();
        if code.size() > 0 {
            let value = code.take_signed(bits);
            let place = *NATURAL.get(at).ok_or(Nonsense)?;
            coefficients[usize::from(place & 63)] = value * quantization[at];
        } else {
            code.take(bits);
            if code.run() < 15 {
                return Ok(());
            }
        }
        at += 1;
    }
    ac.skip(bits, at).ok_or(Nonsense)
}

fn table(tables: &[Option<Huffman>; 4], number: usize) -> Result<&Huffman, Nonsense> {
    tables.get(number).and_then(Option::as_ref).ok_or(Nonsense)
}

/// The next constant coefficient: it is coded as the difference to the one before.
#[inline(always)]
fn constant(bits: &mut Bits, dc: &Huffman, predictor: &mut i32) -> Result<i32, Nonsense> {
    let code = dc.peek(bits).ok_or(Nonsense)?;
    if code.symbol() > 15 {
        return Err(Nonsense);
    }
    *predictor = predictor.wrapping_add(code.take_signed(bits));
    Ok(*predictor)
}

/// One block of a progressive scan.
fn progressive(
    bits: &mut Bits,
    scan: &Scan,
    tables: &Tables,
    member: &ScanChannel,
    state: &mut State,
    kept: &mut Coefficients,
    block: usize,
) -> Result<(), Nonsense> {
    match (scan.first, scan.refines) {
        (0, false) => {
            let dc = table(&tables.dc, member.dc)?;
            let value = constant(bits, dc, &mut state.predictors[member.channel])?;
            kept.set(block, 0, value.wrapping_shl(scan.shift));
            Ok(())
        }
        (0, true) => {
            kept.refine_constant(block, bits.take(1) << scan.shift);
            Ok(())
        }
        (_, false) => first_band(bits, scan, table(&tables.ac, member.ac)?, state, kept, block),
        (_, true) => refine_band(bits, scan, table(&tables.ac, member.ac)?, state, kept, block),
    }
}

fn first_band(
    bits: &mut Bits,
    scan: &Scan,
    ac: &Huffman,
    state: &mut State,
    kept: &mut Coefficients,
    block: usize,
) -> Result<(), Nonsense> {
    if state.end_of_band_run > 0 {
        state.end_of_band_run -= 1;
        return Ok(());
    }
    let mut at = scan.first;
    while at <= scan.last {
        let code = ac.peek(bits).ok_or(Nonsense)?;
        let run = code.run();
        if code.size() > 0 {
            at += run;
            if at > scan.last {
                return Err(Nonsense);
            }
            kept.set(block, at, code.take_signed(bits) << scan.shift);
            at += 1;
            continue;
        }
        code.take(bits);
        if run < 15 {
            state.end_of_band_run = (1 << run) - 1 + bits.take(run as u32) as u32;
            break;
        }
        at += 16;
    }
    Ok(())
}

fn refine_band(
    bits: &mut Bits,
    scan: &Scan,
    ac: &Huffman,
    state: &mut State,
    kept: &mut Coefficients,
    block: usize,
) -> Result<(), Nonsense> {
    let bit = 1 << scan.shift;
    let mut at = scan.first;
    while at <= scan.last && state.end_of_band_run == 0 {
        let symbol = ac.decode(bits).ok_or(Nonsense)?;
        let (run, size) = (u32::from(symbol >> 4), symbol & 15);
        if size == 0 && run < 15 {
            state.end_of_band_run = (1 << run) + bits.take(run) as u32;
            break;
        }
        let value = match size {
            0 => None,
            1 => Some(if bits.take(1) == 1 { bit } else { -bit }),
            _ => return Err(Nonsense),
        };
        at = refine_until(bits, scan.last, run, bit, kept, block, at);
        if let Some(value) = value {
            if at > scan.last {
                return Err(Nonsense);
            }
            kept.set(block, at, value);
        }
        at += 1;
    }
    if state.end_of_band_run > 0 {
        refine_until(bits, scan.last, u32::MAX, bit, kept, block, at);
        state.end_of_band_run -= 1;
    }
    Ok(())
}

/// Reads a further bit for each coefficient that has been set, and stops at the one behind `zeros` that have not.
fn refine_until(
    bits: &mut Bits,
    last: usize,
    mut zeros: u32,
    bit: i32,
    kept: &mut Coefficients,
    block: usize,
    mut at: usize,
) -> usize {
    while at <= last {
        if kept.is_set[block] >> at & 1 == 1 {
            if bits.take(1) == 1 {
                kept.refine(block, at, bit);
            }
        } else if zeros == 0 {
            break;
        } else {
            zeros -= 1;
        }
        at += 1;
    }
    at
}
