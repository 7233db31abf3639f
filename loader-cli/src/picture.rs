//! The picture of where the bytes of a table go: a bar of its sections, and a treemap of directories.

use plotters::element::{Rectangle as Shape, Text};
use plotters::prelude::{
    DrawingArea, DrawingAreaErrorKind, DrawingBackend, HSLColor, IntoDrawingArea, IntoFont,
    SVGBackend,
};
use plotters::style::{BLACK, Color, RGBColor, WHITE};

use crate::shares::{Directory, Rectangle, treemap};

/// Width and height, in pixels.
const SIZE: (u32, u32) = (1200, 800);

/// Around the parts, in pixels.
const MARGIN: f64 = 16.0;

/// Height of a line of text, in pixels.
const LINE: f64 = 18.0;

/// Size of the font, in pixels.
const FONT: f64 = 13.0;

/// Mean width of a character, as part of the size of the font.
const CHARACTER: f64 = 0.5;

/// A piece of the picture that has less than this of all bytes has no directories in it.
const SHARE_MIN: f64 = 0.01;

/// What is pictured.
#[derive(Debug)]
pub(crate) struct Picture<'a> {
    /// What it says above.
    pub(crate) title: &'a str,
    /// Names and bytes of the sections of the table.
    pub(crate) sections: &'a [(&'a str, u32)],
    /// Its directories.
    pub(crate) directories: &'a Directory,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Failed<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;

impl Picture<'_> {
    /// The picture as SVG.
    pub(crate) fn to_svg(&self) -> String {
        let mut svg = String::new();
        let backend = SVGBackend::with_string(&mut svg, SIZE);
        // Into a string nothing fails that is drawn.
        self.draw(&backend.into_drawing_area())
            .expect("a string takes all");
        svg
    }

    fn draw<'b>(&self, area: &Area<'b>) -> Result<(), Failed<'b>> {
        area.fill(&WHITE)?;
        let (width, height) = (f64::from(SIZE.0), f64::from(SIZE.1));
        let inner = width - 2.0 * MARGIN;
        label(area, &[self.title], MARGIN, MARGIN, inner)?;

        let all: f64 = self
            .sections
            .iter()
            .map(|(_, bytes)| f64::from(*bytes))
            .sum();
        let bar = MARGIN + 1.5 * LINE;
        let mut x = MARGIN;
        for (position, (name, bytes)) in self.sections.iter().enumerate() {
            let share = f64::from(*bytes) / all.max(1.0);
            let part = Rectangle {
                x,
                y: bar,
                width: inner * share,
                height: 2.0 * LINE,
            };
            fill(area, part, colour(position, 0.75))?;
            let whole = format!("{name} {bytes} ({:.1} %)", 100.0 * share);
            label(
                area,
                &[&whole, name],
                part.x + 4.0,
                part.y + LINE / 2.0,
                part.width - 8.0,
            )?;
            x += part.width;
        }

        let top = bar + 3.0 * LINE;
        let text = "Directories of source files, by the bytes of their rows:";
        label(area, &[text], MARGIN, top, inner)?;
        let map = Rectangle {
            x: MARGIN,
            y: top + LINE,
            width: inner,
            height: height - top - LINE - MARGIN,
        };
        let root = self.directories;
        for (position, (name, child, part)) in parts(root, map).into_iter().enumerate() {
            directory(area, name, child, part, root.bytes, (position, 0))?;
        }
        area.present()
    }
}

/// The directories in one, and where they are in its rectangle. What lies in the directory itself is left
/// free: on the right, or below.
fn parts(of: &Directory, rectangle: Rectangle) -> Vec<(&str, &Directory, Rectangle)> {
    let mut children = of.largest_first();
    children.retain(|(_, child)| child.bytes > 0.0);
    let weights: Vec<f64> = children.iter().map(|(_, child)| child.bytes).collect();
    if rectangle.width < 1.0 || rectangle.height < 1.0 {
        return Vec::new();
    }
    let share = weights.iter().sum::<f64>() / of.bytes;
    let of_children = match rectangle.width >= rectangle.height {
        true => Rectangle {
            width: rectangle.width * share,
            ..rectangle
        },
        false => Rectangle {
            height: rectangle.height * share,
            ..rectangle
        },
    };
    let rectangles = treemap(&weights, of_children);
    let parts = children.into_iter().zip(rectangles);
    parts
        .map(|((name, child), rectangle)| (name, child, rectangle))
        .collect()
}

/// Draws a directory, and those in it as far as they can be seen; `at` is the number of its colour and how
/// deep it is.
fn directory<'b>(
    area: &Area<'b>,
    name: &str,
    of: &Directory,
    part: Rectangle,
    all: f64,
    at: (usize, u32),
) -> Result<(), Failed<'b>> {
    let (position, depth) = at;
    fill(
        area,
        part,
        colour(position, 0.65 + 0.08 * f64::from(depth.min(3))),
    )?;
    let share = of.bytes / all;
    let whole = format!("{name} {:.0} ({:.1} %)", of.bytes, 100.0 * share);
    label(
        area,
        &[&whole, name],
        part.x + 4.0,
        part.y + 4.0,
        part.width - 8.0,
    )?;
    if share < SHARE_MIN || part.height < 3.0 * LINE {
        return Ok(());
    }
    let inside = Rectangle {
        x: part.x + 3.0,
        y: part.y + LINE + 4.0,
        width: part.width - 6.0,
        height: part.height - LINE - 7.0,
    };
    for (name, child, part) in parts(of, inside) {
        directory(area, name, child, part, all, (position, depth + 1))?;
    }
    Ok(())
}

/// A hue for each number, far from those of its neighbours.
fn colour(position: usize, lightness: f64) -> RGBColor {
    const GOLDEN: f64 = 0.618_034;
    let hue = (position as f64 * GOLDEN).fract();
    let colour = HSLColor(hue, 0.45, lightness).to_rgba().rgb();
    RGBColor(colour.0, colour.1, colour.2)
}

fn fill<'b>(area: &Area<'b>, part: Rectangle, colour: RGBColor) -> Result<(), Failed<'b>> {
    let corner = |x: f64, y: f64| (x.round() as i32, y.round() as i32);
    let corners = [
        corner(part.x, part.y),
        corner(part.x + part.width, part.y + part.height),
    ];
    area.draw(&Shape::new(corners, colour.filled()))?;
    area.draw(&Shape::new(corners, WHITE.stroke_width(1)))
}

/// Writes the first of some texts that fits; of the last one, which is a name, as much as fits, unless
/// that says nothing.
fn label<'b>(
    area: &Area<'b>,
    texts: &[&str],
    x: f64,
    y: f64,
    width: f64,
) -> Result<(), Failed<'b>> {
    const CHARACTERS_MIN: usize = 3;

    let room = (width / (FONT * CHARACTER)).max(0.0) as usize;
    let fits = |text: &&&str| text.chars().count() <= room;
    let text = match (texts.iter().find(fits), texts.last()) {
        (Some(text), _) => (*text).to_owned(),
        (None, Some(name)) if room >= CHARACTERS_MIN => {
            let start: String = name.chars().take(room - 1).collect();
            format!("{start}\u{2026}")
        }
        _ => return Ok(()),
    };
    let font = ("sans-serif", FONT).into_font().color(&BLACK);
    let at = (x.round() as i32, y.round() as i32);
    area.draw(&Text::new(text, at, font))
}
