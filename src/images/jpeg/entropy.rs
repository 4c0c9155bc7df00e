//! Bits and Huffman codes of entropy-coded JPEG data. Knows when it has been read past its end.

use crate::images::ImageError;

const LOOKUP_BITS: u32 = 9;

/// Reads bits up to the next marker or the end of the data; past that it gives zeros and says so.
pub struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// The next bits, from the top.
    buffer: u64,
    count: u32,
    /// How many bits of those ever put into the buffer were made up.
    made_up: u64,
}

impl<'a> Bits<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, buffer: 0, count: 0, made_up: 0 }
    }

    fn fill(&mut self) {
        while self.count <= 56 {
            let byte = self.next_byte().unwrap_or_else(|| {
                self.made_up += 8;
                0
            });
            self.buffer |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
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

    #[inline]
    fn peek(&mut self, bits: u32) -> usize {
        (self.buffer >> (64 - bits)) as usize
    }

    #[inline]
    fn consume(&mut self, bits: u32) {
        self.buffer <<= bits;
        self.count -= bits;
    }

    /// The next `bits` (at most 16) as a number.
    #[inline]
    pub fn take(&mut self, bits: u32) -> i32 {
        if bits == 0 {
            return 0;
        }
        if self.count < 16 {
            self.fill();
        }
        let value = self.peek(bits);
        self.consume(bits);
        value as i32
    }

    /// A number of `bits` in the sign-extended form of JPEG (F.2.2.1 of the standard).
    #[inline]
    pub fn take_signed(&mut self, bits: u32) -> i32 {
        let value = self.take(bits);
        if bits > 0 && value < 1 << (bits - 1) { value - (1 << bits) + 1 } else { value }
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

/// A Huffman table with a lookup for short codes.
pub struct Huffman {
    /// Symbol and length of the code that starts with these bits; length 0 for longer codes.
    lookup: Box<[(u8, u8); 1 << LOOKUP_BITS]>,
    /// The first code beyond each length, aligned to 16 bits, and what to add to a code to get its symbol's place.
    beyond: [u32; 17],
    offset: [i32; 17],
    symbols: Vec<u8>,
}

impl Huffman {
    /// `counts[i]` codes have `i + 1` bits; the symbols follow in the order of their codes.
    pub fn new(counts: &[u8; 16], symbols: &[u8]) -> Result<Self, ImageError> {
        let wrong = || ImageError::damaged("a Huffman table is impossible");
        let mut table = Self {
            lookup: Box::new([(0, 0); 1 << LOOKUP_BITS]),
            beyond: [0; 17],
            offset: [0; 17],
            symbols: symbols.to_vec(),
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
                    table.lookup[first..first + (1 << (LOOKUP_BITS - length))].fill((*symbol, length as u8));
                }
                code += 1;
            }
            place += count as usize;
            table.beyond[length as usize] = code << (16 - length);
            code <<= 1;
        }
        Ok(table)
    }

    /// The next symbol; none when no code begins like this.
    #[inline]
    pub fn decode(&self, bits: &mut Bits) -> Option<u8> {
        if bits.count < 16 {
            bits.fill();
        }
        let (symbol, length) = self.lookup[bits.peek(LOOKUP_BITS)];
        if length > 0 {
            bits.consume(u32::from(length));
            return Some(symbol);
        }
        let code = bits.peek(16) as u32;
        let length = (LOOKUP_BITS + 1..=16).find(|length| code < self.beyond[*length as usize])?;
        bits.consume(length);
        let place = (code >> (16 - length)) as i32 + self.offset[length as usize];
        self.symbols.get(place as usize).copied()
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
        let values = [1, 1, 2, 2, 2, 2, 3, 3].map(|size| bits.take_signed(size));
        assert_eq!(values, [-1, 1, -3, -2, 2, 3, -7, 7]);
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
