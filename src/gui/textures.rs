//! Pictures on the graphics card, bounded in bytes: the ones not drawn for longest go first.

use std::collections::HashMap;

use egui::{ColorImage, Context, TextureHandle, TextureOptions};

use crate::images::Picture;
use crate::jobs::thumbnails::{Thumbnail, Thumbnails, Wish};

/// Uploads per frame: each is a copy of up to a megabyte, and the rest can wait a frame.
const UPLOADS_PER_FRAME: usize = 8;

enum Slot {
    Ready(TextureHandle),
    /// The decoder's reason.
    Failed(String),
}

struct Kept {
    slot: Slot,
    bytes: usize,
    drawn: u64,
}

/// What there is to draw for a photo.
pub enum Sight<'a> {
    Picture(&'a TextureHandle),
    /// Being decoded.
    Waiting,
    /// It cannot be decoded; the reason.
    Failed(&'a str),
}

/// Textures by wish, and the wishes of this frame.
pub struct Textures {
    limit_bytes: usize,
    service: Option<Thumbnails>,
    kept: HashMap<Wish, Kept>,
    bytes: usize,
    frame: u64,
    wanted: Vec<Wish>,
}

impl Textures {
    /// `limit_bytes`: what all textures may take together, except those in sight.
    pub fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, service: None, kept: HashMap::new(), bytes: 0, frame: 0, wanted: Vec::new() }
    }

    /// Takes finished pictures and opens a new frame's list of wishes.
    pub fn begin_frame(&mut self, ctx: &Context) {
        self.frame += 1;
        for _ in 0..UPLOADS_PER_FRAME {
            let Some(done) = self.service.as_ref().and_then(Thumbnails::poll) else { return };
            self.keep(ctx, done);
        }
        ctx.request_repaint();
    }

    /// What there is for a photo now; what is missing is wished for.
    pub fn sight(&mut self, wish: Wish) -> Sight<'_> {
        if self.kept.contains_key(&wish) {
            let kept = self.kept.get_mut(&wish).expect("it was there a line ago");
            kept.drawn = self.frame;
            return match &kept.slot {
                Slot::Ready(texture) => Sight::Picture(texture),
                Slot::Failed(reason) => Sight::Failed(reason),
            };
        }
        self.wanted.push(wish);
        Sight::Waiting
    }

    /// Hands this frame's wishes to the decoders (the first use starts them), which forget the last frame's.
    pub fn end_frame(&mut self, ctx: &Context) {
        let wanted = std::mem::take(&mut self.wanted);
        if self.service.is_none() && !wanted.is_empty() {
            let ctx = ctx.clone();
            self.service = Thumbnails::start(move || super::wake(&ctx)).ok();
        }
        if let Some(service) = &self.service {
            service.want(wanted.into_iter());
        }
    }

    /// What all textures take now.
    pub fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    /// Forgets every picture: the photos may have changed since.
    pub fn clear(&mut self) {
        self.kept.clear();
        self.wanted.clear();
        self.bytes = 0;
        if let Some(service) = &self.service {
            service.want(std::iter::empty());
            while service.poll().is_some() {}
        }
    }

    fn keep(&mut self, ctx: &Context, done: Thumbnail) {
        let (slot, bytes) = match done.picture {
            Ok(picture) => {
                let image = color_image(&picture);
                let bytes = image.pixels.len() * 4;
                (Slot::Ready(ctx.load_texture("photo", image, TextureOptions::LINEAR)), bytes)
            }
            Err(reason) => (Slot::Failed(reason), 0),
        };
        self.bytes += bytes;
        let kept = Kept { slot, bytes, drawn: self.frame };
        if let Some(old) = self.kept.insert(done.wish, kept) {
            self.bytes -= old.bytes;
        }
        self.shrink();
    }

    /// Drops the textures not drawn for longest until the limit holds; those in sight stay.
    fn shrink(&mut self) {
        while self.bytes > self.limit_bytes {
            let old = self.kept.iter().filter(|(_, kept)| kept.bytes > 0 && kept.drawn + 1 < self.frame);
            let Some(oldest) = old.min_by_key(|(_, kept)| kept.drawn).map(|(wish, _)| wish.clone()) else { return };
            self.bytes -= self.kept.remove(&oldest).map_or(0, |kept| kept.bytes);
        }
    }
}

fn color_image(picture: &Picture) -> ColorImage {
    ColorImage::from_rgb([picture.width as usize, picture.height as usize], &picture.rgb)
}
