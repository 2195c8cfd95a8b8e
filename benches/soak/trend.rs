//! What a number does over time.

/// Points of time in minutes and some number.
#[derive(Default)]
pub(crate) struct Trend(Vec<(f64, f64)>);

impl Trend {
    pub(crate) fn push(&mut self, minutes: f64, number: u32) {
        self.0.push((minutes, number.into()));
    }

    pub(crate) fn last(&self) -> f64 {
        self.0.last().map_or(0.0, |it| it.1)
    }

    pub(crate) fn max(&self) -> f64 {
        self.0.iter().map(|it| it.1).fold(0.0, f64::max)
    }

    /// The slope a minute, by least squares, of what came after `warm_up` minutes; and its
    /// standard error, as if points were independent.
    pub(crate) fn slope(&self, warm_up: f64) -> (f64, f64) {
        let points = || self.0.iter().filter(|it| it.0 >= warm_up);
        let count: f64 = points().map(|_| 1.0).sum();
        let mean = |sum: f64| if count > 0.0 { sum / count } else { 0.0 };
        let x = mean(points().map(|it| it.0).sum());
        let y = mean(points().map(|it| it.1).sum());
        let spread: f64 = points().map(|it| (it.0 - x).powi(2)).sum();
        let shared: f64 = points().map(|it| (it.0 - x) * (it.1 - y)).sum();
        if spread == 0.0 || count < 3.0 {
            return (0.0, f64::INFINITY);
        }
        let slope = shared / spread;
        let off = |it: &(f64, f64)| it.1 - y - slope * (it.0 - x);
        let rest: f64 = points().map(|it| off(it).powi(2)).sum();
        (slope, (rest / (count - 2.0) / spread).sqrt())
    }
}
