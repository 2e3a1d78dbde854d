//! Line plots as SVG: axes, a legend, colours that can be told apart in print.

/// One line.
pub struct Curve {
    /// In the legend.
    pub name: String,
    /// x and y, by x.
    pub points: Vec<(f64, f64)>,
    /// What ours is compared with.
    pub dashed: bool,
}

/// A plot.
pub struct Plot {
    /// Above it.
    pub title: String,
    /// Below it.
    pub x: String,
    /// Left of it.
    pub y: String,
    /// Positions and labels on the x axis.
    pub x_ticks: Vec<(f64, String)>,
    /// The lines.
    pub curves: Vec<Curve>,
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 32.0;
const BOTTOM: f64 = 48.0;
/// Okabe and Ito's palette.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444"];

/// A step of 1, 2 or 5 times a power of ten that divides `most` into at most eight.
fn step(most: f64) -> f64 {
    let power = 10f64.powf((most / 8.0).max(1e-9).log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| most / s <= 8.0).unwrap_or(power * 10.0)
}

impl Plot {
    /// The whole file.
    pub fn svg(&self) -> String {
        let points = || self.curves.iter().flat_map(|c| c.points.iter());
        let ticks = || self.x_ticks.iter().map(|t| t.0);
        let x_low = points().map(|p| p.0).chain(ticks()).fold(f64::INFINITY, f64::min);
        let x_high = points().map(|p| p.0).chain(ticks()).fold(f64::NEG_INFINITY, f64::max);
        let y_high = points().map(|p| p.1).fold(0.0, f64::max);
        let by = step(y_high);
        let y_high = (y_high / by).ceil() * by;
        let x_at = |x: f64| LEFT + (x - x_low) / (x_high - x_low).max(1e-9) * (WIDTH - LEFT - RIGHT);
        let y_at = |y: f64| HEIGHT - BOTTOM - y / y_high.max(1e-9) * (HEIGHT - TOP - BOTTOM);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"11\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n"
        );
        let mut text = |x: f64, y: f64, anchor: &str, extra: &str, what: &str| {
            out +=
                &format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\"{extra}>{what}</text>\n");
        };
        let middle = LEFT + (WIDTH - LEFT - RIGHT) / 2.0;
        text(middle, 18.0, "middle", " font-size=\"14\"", &self.title);
        text(middle, HEIGHT - 10.0, "middle", "", &self.x);
        text(LEFT, TOP - 8.0, "end", "", &self.y);
        for (x, label) in &self.x_ticks {
            text(x_at(*x), HEIGHT - BOTTOM + 16.0, "middle", "", label);
        }
        let rows = (y_high / by).round() as u32;
        for row in 0..=rows {
            let y = f64::from(row) * by;
            text(LEFT - 6.0, y_at(y) + 4.0, "end", "", &format!("{y}"));
        }
        for (i, curve) in (0u32..).zip(&self.curves) {
            text(WIDTH - RIGHT + 40.0, TOP + 12.0 + f64::from(i) * 18.0, "start", "", &curve.name);
        }
        for row in 0..=rows {
            let y = y_at(f64::from(row) * by);
            out += &format!(
                "<path d=\"M{LEFT} {y:.1}H{:.1}\" stroke=\"{}\"/>\n",
                WIDTH - RIGHT,
                if row == 0 { "#444444" } else { "#dddddd" }
            );
        }
        for (i, (curve, colour)) in self.curves.iter().zip(COLOURS.iter().cycle()).enumerate() {
            let mut path = String::new();
            for (at, (x, y)) in curve.points.iter().enumerate() {
                path += &format!("{}{:.1} {:.1}", if at == 0 { "M" } else { "L" }, x_at(*x), y_at(*y));
            }
            let dash = if curve.dashed { " stroke-dasharray=\"5 4\"" } else { "" };
            let style = format!("fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}");
            let (from, y) = (WIDTH - RIGHT + 10.0, TOP + 8.0 + i as f64 * 18.0);
            out += &format!("<path d=\"{path}\" {style}/>\n<path d=\"M{from} {y}h24\" {style}/>\n");
        }
        out + "</svg>\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_has_its_lines_inside_its_frame() {
        let curve =
            |name: &str, dashed| Curve { name: name.into(), points: vec![(2.0, 4.0), (6.0, 34.5)], dashed };
        let plot = Plot {
            title: "t".into(),
            x: "x".into(),
            y: "y".into(),
            x_ticks: vec![(2.0, "10^2".into()), (6.0, "10^6".into())],
            curves: vec![curve("a", false), curve("b", true)],
        };
        let svg = plot.svg();
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        assert_eq!((svg.matches("stroke-width").count(), svg.matches("dasharray").count()), (4, 2));
        // 4 of 35 and 34.5 of 35 rounds, left and right end.
        assert!(svg.contains("M56.0 280.0L450.0 36.0"), "{svg}");
    }
}
