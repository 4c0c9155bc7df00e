//! Bits and Huffman codes of entropy-coded JPEG data. Knows when it has been read past its end.
//!
//! This is where most of the time of decoding goes. So a block is decoded with a copy of its [`Bits`] that lives in
//! registers, each code is found together with the bits that follow it, and what a reduced scale does not need is stepped
//! over several codes at a time.

use crate::images::ImageError;

const LOOKUP_BITS: u32 = 10;
const SKIP_BITS: u32 = 12;

/// A code of 16 bits and the 15 behind it that it may speak of.
const LONGEST_BITS: u32 = 31;

/// Reads bits up to the next marker or the end of the data; past that it gives zeros and says so.
#[derive(Clone, Copy)]
pub struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// The next bits, from the top; zeros behind them.
    buffer: u64,
    count: u32,
    /// How many bits of those ever put into the buffer were made up.
    made_up: u64,
}

impl<'a> Bits<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, buffer: 0, count: 0, made_up: 0 }
    }

    /// Makes sure that the buffer holds a code and what belongs to it.
    #[inline(always)]
    fn reserve(&mut self) {
        if self.count < LONGEST_BITS {
            match self.data.get(self.at..).and_then(<[u8]>::first_chunk) {
                Some(bytes) if !has_ff(u32::from_be_bytes(*bytes)) => {
                    self.buffer |= u64::from(u32::from_be_bytes(*bytes)) << (32 - self.count);
                    self.count += 32;
                    self.at += 4;
                }
                _ => *self = self.filled_bytewise(),
            }
        }
    }

    // By value, so that whoever calls it can keep its own copy in registers.
    #[cold]
    #[inline(never)]
    fn filled_bytewise(mut self) -> Self {
        while self.count <= 56 {
            let byte = self.next_byte().unwrap_or_else(|| {
                self.made_up += 8;
                0
            });
            self.buffer |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
        self
    }

    fn next_byte(&mut self) -> Option<u8> {
        let byte = *self.data.get(self.at)?;
        if byte != 0xFF {
            self.at += 1;
            return Some(byte);
        }
        // A zero after 0xFF says that 0xFF is data; anything else is a marker, possibly after more 0xFF.
        (*self.data.get(self.at + 1)? == 0).then(|| {
            self.at += 2;
            0xFF
        })
    }

    /// True once bits were used that were not there.
    pub fn is_overrun(&self) -> bool {
        self.made_up > u64::from(self.count)
    }

    #[inline(always)]
    fn peek(&self, bits: u32) -> usize {
        (self.buffer >> (64 - bits)) as usize
    }

    #[inline(always)]
    fn consume(&mut self, bits: u32) {
        self.buffer <<= bits;
        self.count -= bits;
    }

    /// The next `bits` (at most 16) as a number.
    #[inline(always)]
    pub fn take(&mut self, bits: u32) -> i32 {
        self.reserve();
        // In two steps, because a shift by all 64 bits is none.
        let value = self.buffer >> 1 >> (63 - bits);
        self.consume(bits);
        value as i32
    }

    /// Steps over the restart marker of this number (0–7) and begins anew behind it; false when another marker or
    /// none is there.
    pub fn restart(&mut self, number: u8) -> bool {
        let Some(marker) = self.marker_position() else { return false };
        if self.data[marker + 1] != 0xD0 + number {
            return false;
        }
        *self = Self { at: marker + 2, ..Self::new(self.data) };
        true
    }

    /// Where the next marker begins (or the data ends), restart markers stepped over.
    pub fn end(&mut self) -> usize {
        while let Some(marker) = self.marker_position() {
            if !(0xD0..=0xD7).contains(&self.data[marker + 1]) {
                return marker;
            }
            self.at = marker + 2;
        }
        self.data.len()
    }

    /// The next marker.
    pub fn next_marker(&self) -> Option<u8> {
        self.marker_position().map(|marker| self.data[marker + 1])
    }

    fn marker_position(&self) -> Option<usize> {
        let rest = self.data.get(self.at..)?;
        let is_marker = |pair: &[u8]| pair[0] == 0xFF && pair[1] != 0 && pair[1] != 0xFF;
        rest.windows(2).position(is_marker).map(|offset| self.at + offset)
    }
}

/// Whether one of the bytes is 0xFF: the only one whose highest bit is set and stays away when one is added.
#[inline(always)]
fn has_ff(bytes: u32) -> bool {
    bytes & !bytes.wrapping_add(0x0101_0101) & 0x8080_8080 != 0
}

/// A Huffman code at the front of the bits, in one number: the length of the code with what follows it (as many bits as
/// the lower half of the symbol says), from bit 8 the length of the code alone, from bit 16 the symbol.
#[derive(Clone, Copy, Default)]
pub struct Code(u32);

impl Code {
    fn new(symbol: u8, length: u32) -> Self {
        Self((length + u32::from(symbol & 15)) | (length << 8) | (u32::from(symbol) << 16))
    }

    #[inline(always)]
    pub fn symbol(self) -> u8 {
        (self.0 >> 16) as u8
    }

    /// How many coefficients of zero come first.
    #[inline(always)]
    pub fn run(self) -> usize {
        (self.0 >> 20) as usize
    }

    /// How many bits the number behind the code has.
    #[inline(always)]
    pub fn size(self) -> u32 {
        self.0 >> 16 & 15
    }

    /// Of the code alone.
    #[inline(always)]
    fn length(self) -> u32 {
        self.0 >> 8 & 31
    }

    /// Takes the code, and the number behind it in the sign-extended form of JPEG (F.2.2.1 of the standard).
    #[inline(always)]
    pub fn take_signed(self, bits: &mut Bits) -> i32 {
        let number = bits.buffer << self.length();
        // Numbers that begin with a zero are negative; their bits are those of the positive one, inverted.
        let inverted = !(number as i64 >> 63) as u64;
        let magnitude = (number ^ inverted) >> 1 >> (63 - self.size());
        bits.consume(self.0 & 31);
        ((magnitude ^ inverted) as i32).wrapping_sub(inverted as i32)
    }

    /// Takes the code alone.
    #[inline(always)]
    pub fn take(self, bits: &mut Bits) {
        bits.consume(self.length());
    }
}

/// What stepping over whole codes at the front of the bits comes to, in one number: how many bits, from bit 6 how many
/// coefficients, from bit 13 whether the last code ends the block, from bit 14 whether the first code is too long.
#[derive(Clone, Copy, PartialEq)]
struct Skip(u16);

impl Skip {
    const END: u16 = 1 << 13;
    const NONE: Self = Self(1 << 14);

    #[inline(always)]
    fn bits(self) -> u32 {
        u32::from(self.0 & 63)
    }

    /// More than a block has, unless these codes are in its middle.
    #[inline(always)]
    fn coefficients(self) -> usize {
        usize::from(self.0 >> 6)
    }
}

/// A Huffman table with a lookup for short codes.
pub struct Huffman {
    /// The code that these bits start with; zero for longer ones.
    lookup: Box<[Code; 1 << LOOKUP_BITS]>,
    /// The first code beyond each length, aligned to 16 bits, and what to add to a code to get its symbol's place.
    beyond: [u32; 17],
    offset: [i32; 17],
    symbols: Vec<u8>,
    skips: Option<Box<[Skip; 1 << SKIP_BITS]>>,
}

impl Huffman {
    /// `counts[i]` codes have `i + 1` bits; the symbols follow in the order of their codes.
    pub fn new(counts: &[u8; 16], symbols: &[u8]) -> Result<Self, ImageError> {
        let wrong = || ImageError::damaged("a Huffman table is impossible");
        let mut table = Self {
            lookup: Box::new([Code::default(); 1 << LOOKUP_BITS]),
            beyond: [0; 17],
            offset: [0; 17],
            symbols: symbols.to_vec(),
            skips: None,
        };
        let (mut code, mut place) = (0_u32, 0_usize);
        for length in 1..=16_u32 {
            let count = u32::from(counts[length as usize - 1]);
            table.offset[length as usize] = place as i32 - code as i32;
            if code + count > 1 << length {
                return Err(wrong());
            }
            for symbol in symbols.get(place..place + count as usize).ok_or_else(wrong)? {
                if length <= LOOKUP_BITS {
                    let first = (code << (LOOKUP_BITS - length)) as usize;
                    table.lookup[first..first + (1 << (LOOKUP_BITS - length))].fill(Code::new(*symbol, length));
                }
                code += 1;
            }
            place += count as usize;
            table.beyond[length as usize] = code << (16 - length);
            code <<= 1;
        }
        Ok(table)
    }

    /// The next code; none when no code begins like this.
    #[inline(always)]
    pub fn peek(&self, bits: &mut Bits) -> Option<Code> {
        bits.reserve();
        let code = self.lookup[bits.peek(LOOKUP_BITS)];
        if code.0 > 0 { Some(code) } else { self.long_code(bits.peek(16) as u32) }
    }

    #[cold]
    #[inline(never)]
    fn long_code(&self, next: u32) -> Option<Code> {
        let length = (LOOKUP_BITS + 1..=16).find(|length| next < self.beyond[*length as usize])?;
        let place = (next >> (16 - length)) as i32 + self.offset[length as usize];
        Some(Code::new(*self.symbols.get(place as usize)?, length))
    }

    /// Takes the next symbol; none when no code begins like this.
    #[inline(always)]
    pub fn decode(&self, bits: &mut Bits) -> Option<u8> {
        let code = self.peek(bits)?;
        code.take(bits);
        Some(code.symbol())
    }

    /// Makes [`skip`](Self::skip) fast: the table has the codes of coefficients.
    pub fn prepare_skips(&mut self) {
        let skips = (0..1 << SKIP_BITS).map(|bits| self.skipped(bits)).collect::<Box<[Skip]>>();
        self.skips = skips.try_into().ok();
    }

    /// As many codes as begin and end within these bits; what follows the last code may lie behind them.
    fn skipped(&self, bits: u32) -> Skip {
        let mut skip = Skip(0);
        while skip.bits() < SKIP_BITS {
            let rest = (bits << skip.bits()) & ((1 << SKIP_BITS) - 1);
            let code = self.lookup[(rest >> (SKIP_BITS - LOOKUP_BITS)) as usize];
            if code.0 == 0 || skip.bits() + code.length() > SKIP_BITS {
                break;
            }
            skip.0 += (code.0 & 31) as u16;
            if code.size() == 0 && code.run() < 15 {
                skip.0 |= Skip::END;
                break;
            }
            skip.0 += (code.run() as u16 + 1) << 6;
        }
        // A dozen codes of one bit with sixteen zeros each would run over into the marks.
        if skip.0 == 0 || skip.coefficients() & 127 > 64 { Skip::NONE } else { skip }
    }

    /// Steps over the coefficients from `at` (1–63) to the end of the block; none when they make no sense.
    #[inline(always)]
    pub fn skip(&self, bits: &mut Bits, mut at: usize) -> Option<()> {
        while at < 64 {
            if let Some(skips) = &self.skips {
                bits.reserve();
                let mut skip = skips[bits.peek(SKIP_BITS)];
                while at + skip.coefficients() < 64 {
                    bits.consume(skip.bits());
                    at += skip.coefficients();
                    bits.reserve();
                    skip = skips[bits.peek(SKIP_BITS)];
                }
                if skip.0 & Skip::END != 0 && at + skip.coefficients() < 64 + usize::from(Skip::END >> 6) {
                    bits.consume(skip.bits());
                    return Some(());
                }
            }
            let code = self.peek(bits)?;
            code.take_signed(bits);
            match (code.run(), code.size()) {
                (0..15, 0) => return Some(()),
                (run, size) if size == 0 || at + run < 64 => at += run + 1,
                _ => return None,
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stuffed_bytes_are_data_and_markers_end_it() {
        let mut bits = Bits::new(&[0xFF, 0x00, 0x12, 0xFF, 0xD9]);
        assert_eq!(bits.take(16), 0xFF12);
        assert!(!bits.is_overrun());
        assert_eq!(bits.take(1), 0);
        assert!(bits.is_overrun());
        assert_eq!(bits.end(), 3);
    }

    #[test]
    fn signed_numbers_follow_the_standard() {
        let mut bits = Bits::new(&[0b0100_0110, 0b1100_0111, 0, 0]);
        bits.reserve();
        let values = [1, 1, 2, 2, 2, 2, 3, 3, 0].map(|size| Code::new(size, 0).take_signed(&mut bits));
        assert_eq!(values, [-1, 1, -3, -2, 2, 3, -7, 7, 0]);
    }

    #[test]
    fn what_is_stepped_over_is_what_would_be_read() {
        // A table of the usual kind: short codes for small numbers without zeros before them, the end at 1010.
        let counts = [0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125];
        let first = [1, 2, 3, 0, 4, 0x11, 5, 0x12, 0x21, 0x31, 0x41, 6, 0x13, 0x51, 0x61, 7];
        let rest = (0..=255_u8).filter(|symbol| !first.contains(symbol));
        let symbols: Vec<u8> = first.into_iter().chain(rest).take(162).collect();
        let table_without = Huffman::new(&counts, &symbols).unwrap();
        let mut table = Huffman::new(&counts, &symbols).unwrap();
        table.prepare_skips();
        // Without the bytes 0xFF, which are stuffed.
        for start in (0..=u16::MAX).filter(|start| !start.to_be_bytes().contains(&0xFF)) {
            let data = [start.to_be_bytes(), [0x5A, 0x3C]].concat();
            for at in [1, 50, 60] {
                let (mut skipping, mut reading) = (Bits::new(&data), Bits::new(&data));
                let skipped = table.skip(&mut skipping, at).is_some();
                let read = table_without.skip(&mut reading, at).is_some();
                let bits_used = |bits: &Bits| 8 * bits.at as u64 + bits.made_up - u64::from(bits.count);
                assert_eq!(skipped, read, "{start:016b} from {at}");
                assert!(!read || bits_used(&skipping) == bits_used(&reading), "{start:016b} from {at}");
            }
        }
    }

    #[test]
    fn codes_longer_than_the_lookup_are_found() {
        // One code of each length: 0, 10, 110, …; the last of 16 bits.
        let symbols: Vec<u8> = (1..=16).collect();
        let table = Huffman::new(&[1; 16], &symbols).unwrap();
        for length in 1..=16_u32 {
            let code = (0xFFFF_u32 << (17 - length)) as u16;
            let [high, low] = code.to_be_bytes();
            let stuffed: Vec<u8> = [high, low]
                .iter()
                .flat_map(|byte| match byte {
                    0xFF => vec![0xFF, 0],
                    byte => vec![*byte],
                })
                .collect();
            assert_eq!(table.decode(&mut Bits::new(&stuffed)), Some(length as u8), "length {length}");
        }
        assert!(Huffman::new(&[3; 16], &[0; 48]).is_err(), "three codes of one bit");
        assert!(Huffman::new(&[1; 16], &[0; 4]).is_err(), "too few symbols");
    }
}
