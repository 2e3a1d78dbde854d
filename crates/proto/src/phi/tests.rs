// Reference values keep all their digits.
#![allow(clippy::excessive_precision, clippy::approx_constant)]

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const MODELS: [Model; 3] = [Model::Normal, Model::Exponential, Model::Pekko];

fn close(got: f64, want: f64, relative: f64, what: &str) {
    assert!((got - want).abs() <= relative * want.abs(), "{what}: got {got:e}, want {want:e}");
}

fn near(got: f64, want: f64, absolute: f64) {
    assert!((got - want).abs() <= absolute, "got {got}, want {want} +- {absolute}");
}

fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

/// mpmath, 60 digits.
const NORMAL: [(f64, f64); 31] = [
    (-10.0, 3.3092601213067223e-24),
    (-5.0, 1.2449121373882917e-7),
    (-2.0, 0.0099943795341087),
    (-1.0, 0.0750260129578180),
    (0.0, 0.3010299956639812),
    (0.5, 0.5106919892652408),
    (1.0, 0.7995455414919705),
    (1.5, 1.1751767216148164),
    (2.0, 1.6430160801409370),
    (3.0, 2.8696990359293691),
    (4.0, 4.4993349075564789),
    (5.0, 6.5426456723906545),
    (6.0, 9.0058643274767042),
    (7.0, 11.892853637475490),
    (8.0, 15.206142551017155),
    (8.15, 15.740018972915),
    (8.37, 16.540470054059),
    (10.0, 23.118053405486076),
    (15.0, 50.435219614275511),
    (20.0, 88.560095343075592),
    (25.0, 137.51474765099553),
    (30.0, 197.30920926166095),
    (38.0, 315.53978970396251),
    (38.4, 322.18035080329),
    (50.0, 544.96633586199665),
    (67.785685596603, 1000.0),
    (100.0, 2173.8715428690344),
    (1000.0, 217150.64004199439),
    // Pekko's defaults with a pause of 3 s, and sigma floors.
    (4.0, 4.49933490755648),
    (5.62, 8.02009),
    (10.0, 23.1180534054861),
];

#[test]
fn the_normal_tail_holds_every_row_of_the_reference() {
    for (y, want) in NORMAL {
        let relative = if want == 8.02009 { 1e-6 } else { 1e-12 };
        close(normal_tail(y), want, relative, &format!("y = {y}"));
        close(phi(Model::Normal, 1000.0 + 100.0 * y, 1000.0, 100.0), want, 1e-12f64.max(relative), "scaled");
    }
    assert!(normal_tail(-40.0).to_bits() == 0, "no minus zero");
}

#[test]
fn z_inverts_the_normal_tail() {
    let rows = [
        (0.5, 0.47827353237616),
        (1.0, 1.2815515655446),
        (2.0, 2.3263478740408),
        (3.0, 3.0902323061678),
        (5.0, 4.2648907939228),
        (8.0, 5.6120012441748),
        (10.0, 6.3613409024041),
        (12.0, 7.0344838253011),
        (16.0, 8.2220822161304),
        (20.0, 9.2623400897984),
        (50.0, 14.933337534788),
        (100.0, 21.273453560965),
        (300.0, 37.047096299361),
        (1000.0, 67.785685596603),
        (1e4, 214.56730107936),
        (1e6, 2145.9620232949),
    ];
    for (level, want) in rows {
        close(z(level), want, 1e-13, &format!("z({level})"));
    }
    near(z(std::f64::consts::LOG10_2), 0.0, 1e-15);
    assert_eq!(z(0.0), f64::NEG_INFINITY);
    assert_eq!(z(-1.0), f64::NEG_INFINITY);
    assert_eq!(z(f64::NAN), f64::NEG_INFINITY);
    assert!(z(f64::MAX).is_finite() && z(1e-320).is_finite());
}

#[test]
fn the_exponential_model_is_exact() {
    // Multiples of log10(e) = 0.434294481903251827651128918916605...
    let rows = [
        (1000.0, 0.434_294_481_903_251_827_65),
        (5000.0, 2.171_472_409_516_259_138_26),
        (10_000.0, 4.342_944_819_032_518_276_51),
        (18_420.0, 7.999_704_356_657_898_665_33),
        (18_421.0, 8.000_138_651_139_801_917_16),
        (36_841.0, 15.999_843_007_797_700_582_5),
        (46_052.0, 20.000_129_480_608_553_167),
        (100_000.0, 43.429_448_190_325_182_765_1),
        (230_259.0, 100.000_213_108_560_862_583),
        (2_302_586.0, 1_000.000_393_907_681_012_82),
    ];
    for (t, want) in rows {
        close(phi(Model::Exponential, t, 1000.0, 0.0), want, 1e-15, &format!("t = {t}"));
    }
    close(phi(Model::Exponential, 36842.0, 2000.0, 0.0), 8.00013865114, 1e-12, "bootstrap");
    close(timeout(Model::Exponential, 1000.0, 0.0, 8.0), 18_420.6807439523654721, 1e-15, "threshold 8");
}

#[test]
fn phi_of_samples_matches_the_reference() {
    let mut window = ArrivalWindow::new(1000);
    for sample in [100, 200, 125, 340, 130] {
        window.push(ms(sample));
    }
    assert_eq!(window.mean_ms(), 179.0);
    assert_eq!(window.variance_ms2(), 7584.0);
    close(window.std_dev_ms(), 87.086164228309, 1e-13, "population");
    let sample_std = (window.variance_ms2() * 5.0 / 4.0).sqrt();
    close(sample_std, 97.3652915571047, 1e-13, "sample");
    let rows = [
        (300, 1.08432984709618, 0.970691959154641, 0.727867846765227),
        (500, 3.94347197780005, 3.31081870776603, 1.21311307794204),
        (700, 8.95933889697606, 7.35913194824656, 1.69835830911886),
        (1000, 20.677573291644, 16.7704024361946, 2.42622615588409),
        (2000, 96.6662656334885, 77.6288903525257, 4.85245231176818),
    ];
    for (t, population, sample, exponential) in rows {
        close(window.phi(ms(t), Model::Normal, Duration::ZERO), population, 1e-12, "population");
        close(phi(Model::Normal, t as f64, 179.0, sample_std), sample, 1e-12, "sample");
        close(window.phi(ms(t), Model::Exponential, Duration::ZERO), exponential, 1e-12, "exponential");
    }
    close(window.phi(ms(500), Model::Normal, ms(100)), 3.17804463218, 1e-11, "floor");
    close(window.phi(ms(1000), Model::Normal, ms(100)), 15.9562674598, 1e-11, "floor");
}

#[test]
fn thresholds_become_the_timeouts_of_the_reference() {
    for (level, normal, pekko, exponential) in
        [(8.0, 5.612, 5.226, 18.42), (12.0, 7.034, 6.292, 27.63), (16.0, 8.222, 7.120, 36.84)]
    {
        near(timeout(Model::Normal, 1000.0, 100.0, level), 1000.0 + 100.0 * normal, 0.05);
        near(timeout(Model::Pekko, 1000.0, 100.0, level), 1000.0 + 100.0 * pekko, 0.05);
        near(timeout(Model::Exponential, 1000.0, 100.0, level), 1000.0 * exponential, 5.0);
    }
    // Pekko's defaults: the logistic form crosses 8 at 4523 ms, the exact tail at 4562.
    assert!(phi(Model::Pekko, 4522.0, 4000.0, 100.0) < 8.0);
    near(phi(Model::Pekko, 4523.0, 4000.0, 100.0), 8.01287, 1e-5);
    assert!(phi(Model::Normal, 4561.0, 4000.0, 100.0) < 8.0);
    near(phi(Model::Normal, 4562.0, 4000.0, 100.0), 8.02009, 1e-5);
}

#[test]
fn the_logistic_tail_is_pekkos_formula() {
    let rows = [
        (-5.0, 2.18e-8),
        (-2.0, 0.0099988),
        (-1.0, 0.075033),
        (0.0, 0.30103),
        (0.5, 0.510889),
        (1.0, 0.799508),
        (1.5, 1.17427),
        (2.0, 1.64283),
        (3.0, 2.90948),
        (4.0, 4.73669),
        (5.0, 7.29995),
        (6.0, 10.7826),
        (7.0, 15.3685),
        (8.0, 21.2416),
        (8.15, 22.2449),
        (8.37, 23.7777),
        (10.0, 37.5847),
        (15.0, 113.839),
        (20.0, 259.048),
    ];
    for (y, want) in rows {
        // The table prints six digits, three for the smallest value.
        close(logistic_tail(y), want, if want < 1e-6 { 5e-3 } else { 1e-5 }, &format!("y = {y}"));
    }
    // The printed formula, where it does not overflow.
    for step in -300..=2100 {
        let y = f64::from(step) / 100.0;
        let e = (-y * (1.5976 + 0.070566 * y * y)).exp();
        let printed = if y > 0.0 { -(e / (1.0 + e)).log10() } else { -(1.0 - 1.0 / (1.0 + e)).log10() };
        close(logistic_tail(y), printed, 1e-9, &format!("y = {y}"));
    }
}

#[test]
fn phi_is_finite_whatever_comes() {
    let values = [
        0.0,
        -0.0,
        -1.0,
        1e-308,
        5e-324,
        1e-3,
        1.0,
        1e3,
        1e9,
        1e18,
        1e100,
        1e154,
        1e155,
        1e200,
        1e300,
        f64::MAX,
        f64::MIN,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
    ];
    for model in MODELS {
        for elapsed in values {
            for mean in values {
                for std_dev in values {
                    let got = phi(model, elapsed, mean, std_dev);
                    assert!(got.is_finite() && got >= 0.0, "{model:?} {elapsed} {mean} {std_dev}: {got}");
                    let limit = timeout(model, mean, std_dev, elapsed);
                    assert!(
                        limit.is_finite() && limit >= 0.0,
                        "{model:?} {mean} {std_dev} {elapsed}: {limit}"
                    );
                }
            }
        }
    }
    close(phi(Model::Normal, 1000.0, 1000.0, 0.0), std::f64::consts::LOG10_2, 1e-15, "phi(mean)");
    assert_eq!(phi(Model::Normal, -500.0, 1000.0, 100.0), phi(Model::Normal, 0.0, 1000.0, 100.0));
}

#[test]
fn phi_rises_strictly_with_time() {
    for model in MODELS {
        let mut last = -1.0;
        // From five deviations below the mean to far beyond, in steps small against every seam of the approximations.
        for step in 0..400_000 {
            let t = 500.0 + f64::from(step) * 0.01;
            let now = phi(model, t, 1000.0, 100.0);
            assert!(now > last, "{model:?} at {t}: {now} after {last}");
            last = now;
        }
        for t in [1e4, 1e5, 1e6, 1e9, 1e12, 1e15, 1e60] {
            let now = phi(model, t, 1000.0, 100.0);
            assert!(now > last, "{model:?} at {t}");
            last = now;
        }
    }
    // The seams of the rational approximations, at a thousandth of a deviation's millionth.
    for seam in [-4.0, -0.46875, 0.0, 0.46875, 4.0] {
        let y = seam * std::f64::consts::SQRT_2;
        for step in -1000..1000 {
            let at = y + f64::from(step) * 1e-9;
            assert!(normal_tail(at + 1e-9) > normal_tail(at), "seam {seam}, step {step}");
        }
    }
}

proptest! {
    #[test]
    fn timeout_is_where_phi_reaches_the_threshold(
        mean in 1.0f64..1e6, ratio in 1e-3f64..1.0, level in 0.5f64..400.0, model in 0usize..3
    ) {
        let (model, std_dev) = (MODELS[model], mean * ratio);
        let limit = timeout(model, mean, std_dev, level);
        let got = phi(model, limit, mean, std_dev);
        prop_assert!((got - level).abs() <= 1e-9 * level, "{model:?}: {got} at the timeout for {level}");
        prop_assert!(phi(model, limit * (1.0 + 1e-9), mean, std_dev) > level);
        prop_assert!(phi(model, limit * (1.0 - 1e-9), mean, std_dev) < level);
    }

    #[test]
    fn z_and_the_tail_are_inverse(y in -5.0f64..1000.0) {
        let back = z(normal_tail(y));
        prop_assert!((back - y).abs() <= 1e-9, "{y} came back as {back}");
        let back = logistic_z(logistic_tail(y));
        prop_assert!((back - y).abs() <= 1e-8 * (1.0 + y.abs()), "{y} came back as {back}");
    }

    #[test]
    fn the_window_agrees_with_a_recount(
        capacity in 1usize..20, samples in proptest::collection::vec(0u64..10_000_000, 0..60)
    ) {
        let mut window = ArrivalWindow::new(capacity);
        for (count, sample) in samples.iter().enumerate() {
            window.push(Duration::from_micros(*sample));
            let held = &samples[(count + 1).saturating_sub(capacity)..=count];
            let mean = held.iter().map(|s| *s as f64 / 1e3).sum::<f64>() / held.len() as f64;
            let variance = held.iter().map(|s| (*s as f64 / 1e3 - mean).powi(2)).sum::<f64>() / held.len() as f64;
            prop_assert_eq!(window.len(), held.len());
            prop_assert!((window.mean_ms() - mean).abs() <= 1e-9 * mean.max(1.0));
            prop_assert!((window.variance_ms2() - variance).abs() <= 1e-8 * variance.max(1.0));
        }
    }
}

#[test]
fn the_history_is_pekkos() {
    let mut window = ArrivalWindow::new(20);
    assert!(window.is_empty() && window.mean_ms() == 0.0 && window.std_dev_ms() == 0.0);
    assert_eq!(window.timeout(Model::Normal, ms(1), 8.0), None);
    assert_eq!(window.phi(ms(1000), Model::Normal, ms(1)), 0.0);
    window.push(ms(100));
    assert_eq!((window.mean_ms(), window.variance_ms2()), (100.0, 0.0));
    let mut window = ArrivalWindow::new(3);
    for sample in [100, 110, 90] {
        window.push(ms(sample));
    }
    assert_eq!(window.mean_ms(), 100.0);
    near(window.variance_ms2(), 66.666_666_7, 1e-6);
    window.push(ms(140));
    near(window.mean_ms(), 113.333_333_3, 1e-6);
    near(window.variance_ms2(), 422.222_222_2, 1e-6);
    window.push(ms(80));
    near(window.mean_ms(), 103.333_333_3, 1e-6);
    near(window.variance_ms2(), 688.888_888_9, 1e-6);
    window.clear();
    assert!(window.is_empty());
}

#[test]
fn the_window_does_not_drift() {
    let mut window = ArrivalWindow::new(64);
    let mut state = 1u64;
    for _ in 0..10_000_000u32 {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        window.push(Duration::from_micros(state >> 20));
    }
    for sample in 0..64 {
        window.push(ms(1000 + sample % 2));
    }
    assert_eq!((window.mean_ms(), window.variance_ms2()), (1000.5, 0.25));
    // The extremes stay inside the sums.
    let mut window = ArrivalWindow::new(usize::MAX);
    assert_eq!(window.capacity(), WINDOW_MAX);
    for sample in 0..2 * WINDOW_MAX {
        window.push(if sample % 2 == 0 { Duration::MAX } else { Duration::ZERO });
    }
    assert_eq!(window.mean_ms(), (1u64 << 45) as f64 / 1e3);
    assert_eq!(window.std_dev_ms(), (1u64 << 45) as f64 / 1e3);
}

#[test]
fn priors_give_the_window_its_first_mean_and_deviation() {
    let window = ArrivalWindow::with_prior(64, ms(2000), ms(200));
    assert_eq!((window.len(), window.mean_ms(), window.std_dev_ms()), (2, 2000.0, 200.0));
    let limit = window.timeout(Model::Normal, ms(100), 8.0).unwrap();
    near(limit.as_secs_f64() * 1e3, 2000.0 + 200.0 * 5.6120012441748, 1e-3);
    assert!(window.phi(limit, Model::Normal, ms(100)) >= 8.0);
}

fn detector(options: PhiOptions) -> PhiAccrualDetector {
    PhiAccrualDetector::new(options).unwrap()
}

fn pekko() -> PhiOptions {
    PhiOptions { model: Model::Pekko, ..PhiOptions::default() }
}

/// A detector under a clock that steps by the next interval at each reading, as in Pekko's specs.
struct Scripted<'a> {
    detector: PhiAccrualDetector,
    intervals: std::slice::Iter<'a, u32>,
    now_ms: f64,
}

fn scripted(options: PhiOptions, intervals: &[u32]) -> Scripted<'_> {
    Scripted { detector: PhiAccrualDetector::new(options).unwrap(), intervals: intervals.iter(), now_ms: 0.0 }
}

impl Scripted<'_> {
    fn tick(&mut self) -> f64 {
        self.now_ms += f64::from(*self.intervals.next().unwrap());
        self.now_ms
    }

    fn beat(&mut self, times: usize) {
        for _ in 0..times {
            let now_ms = self.tick();
            self.detector.heartbeat(now_ms).unwrap();
        }
    }

    fn phi(&mut self) -> f64 {
        let now_ms = self.tick();
        self.detector.phi(now_ms).unwrap()
    }

    fn available(&mut self) -> bool {
        let now_ms = self.tick();
        self.detector.is_available(now_ms).unwrap()
    }
}

#[test]
fn pekko_phi_values() {
    let cdf = |t: f64| 1.0 - 10f64.powf(-phi(Model::Pekko, t, 0.0, 10.0));
    for (t, want) in
        [(0.0, 0.5), (6.0, 0.7257), (15.0, 0.9332), (20.0, 0.97725), (25.0, 0.99379), (35.0, 0.99977)]
    {
        near(cdf(t), want, 1e-3);
        near(1.0 - 10f64.powf(-phi(Model::Normal, t, 0.0, 10.0)), want, 1e-3);
    }
    near(cdf(40.0), 0.99997, 1e-4);
    for t in 1..=40 {
        assert!(phi(Model::Pekko, f64::from(t), 0.0, 10.0) > phi(Model::Pekko, f64::from(t - 1), 0.0, 10.0));
    }
    near(1.0 - 10f64.powf(-phi(Model::Pekko, 22.0, 20.0, 3.0)), 0.7475, 1e-3);
    near(phi(Model::Pekko, 10.0, 0.0, 1.0), 38.0, 1.0);
    near(phi(Model::Pekko, -25.0, 0.0, 1.0), 0.30103, 1e-5);
    near(logistic_tail(-25.0), 0.0, 1e-9);
    for (t, want) in [
        (0.0, 0.0),
        (500.0, 0.1),
        (1000.0, 0.3),
        (1200.0, 1.6),
        (1400.0, 4.7),
        (1600.0, 10.8),
        (1700.0, 15.3),
    ] {
        near(phi(Model::Pekko, t, 1000.0, 100.0), want, 0.1);
    }
    // The exact tail is another function there.
    assert!((phi(Model::Normal, 1600.0, 1000.0, 100.0) - 10.8).abs() > 1.0);
    assert!((phi(Model::Normal, 10.0, 0.0, 1.0) - 38.0).abs() > 1.0);
}

#[test]
fn pekko_without_a_heartbeat_phi_is_zero() {
    let fd = detector(pekko());
    assert_eq!(fd.phi(0.0), Ok(0.0));
    assert_eq!(fd.phi(1e6), Ok(0.0));
    assert_eq!(fd.is_available(1e6), Ok(true));
}

#[test]
fn pekko_one_heartbeat_uses_the_estimate() {
    for model in [Model::Pekko, Model::Normal] {
        let mut fd = detector(PhiOptions { model, first_heartbeat_estimate_ms: Some(1000.0), ..pekko() });
        fd.heartbeat(0.0).unwrap();
        assert_eq!((fd.samples(), fd.mean(), fd.std_dev()), (2, 1000.0, 250.0));
        near(fd.phi(1000.0).unwrap(), 0.3, 0.2);
        near(fd.phi(2000.0).unwrap(), 4.5, 0.3);
        assert!(fd.phi(3000.0).unwrap() > 15.0);
    }
    let mut fd = detector(pekko());
    fd.heartbeat(0.0).unwrap();
    assert_eq!(fd.mean(), 1000.0);
}

#[test]
fn pekko_phi_of_two_heartbeats() {
    let mut fd = scripted(pekko(), &[0, 100, 100, 100, 4800]);
    fd.beat(1);
    assert!(fd.available());
    fd.beat(1);
    let (early, late) = (fd.phi(), fd.phi());
    assert!(early > 0.0 && late > early);
}

#[test]
fn pekko_available_after_a_series_dead_when_it_ends() {
    let mut fd =
        scripted(PhiOptions { threshold: 3.0, ..pekko() }, &[0, 1000, 100, 100, 7000, 100, 1000, 100, 100]);
    fd.beat(3);
    assert!(fd.available()); // 1200
    assert!(!fd.available()); // 8200
    fd.beat(3);
    assert!(fd.available());
}

#[test]
fn pekko_the_outage_interval_is_not_recorded() {
    let with_pause = PhiOptions { acceptable_pause_ms: 3000.0, ..pekko() };
    let mut intervals = vec![1000; 1000];
    intervals[0] = 0;
    intervals.extend([300_000, 100, 900, 100, 7000, 100, 900, 100, 900]);
    let mut fd = scripted(with_pause.clone(), &intervals);
    fd.beat(1000);
    let mean = fd.detector.mean();
    assert!(!fd.available()); // five minutes
    fd.beat(1);
    assert_eq!(fd.detector.mean(), mean);
    assert!(fd.available());
    fd.beat(1);
    assert!(!fd.available()); // seven seconds
    fd.beat(1);
    assert!(fd.available());
    fd.beat(1);
    assert!(fd.available());
    // Every other model takes every interval.
    let mut fd = scripted(PhiOptions { model: Model::Normal, ..with_pause }, &intervals);
    fd.beat(1000);
    assert!(!fd.available());
    assert_eq!(fd.detector.samples(), 999);
    fd.beat(1);
    near(fd.detector.mean(), (999.0 * 1000.0 + 300_100.0) / 1000.0, 1e-9);
}

#[test]
fn pekko_pauses_within_the_margin_are_accepted() {
    let with_pause = PhiOptions { acceptable_pause_ms: 3000.0, ..pekko() };
    let mut fd = scripted(with_pause.clone(), &[0, 1000, 1000, 1000, 4000, 1000, 1000]);
    fd.beat(4);
    assert!(fd.available());
    fd.beat(1);
    assert!(fd.available());
    let mut fd = scripted(with_pause, &[0, 1000, 1000, 1000, 1000, 1000, 500, 500, 5000]);
    fd.beat(6);
    assert!(fd.available());
    fd.beat(1);
    assert!(!fd.available());
}

#[test]
fn pekko_old_samples_leave_the_window() {
    let intervals = [0, 100, 100, 100, 100, 600, 500, 500, 500, 500, 500];
    let mut fd = scripted(PhiOptions { window_size: 3, ..pekko() }, &intervals);
    fd.beat(4);
    let early = fd.phi();
    fd.beat(4);
    near(fd.phi(), early, 1e-3);
}

#[test]
fn cassandra_arrival_window() {
    let mut fd = detector(PhiOptions {
        model: Model::Exponential,
        window_size: 4,
        first_heartbeat_estimate_ms: Some(2000.0),
        ..PhiOptions::default()
    });
    fd.heartbeat(111.0).unwrap();
    assert_eq!((fd.samples(), fd.mean()), (1, 2000.0));
    close(fd.phi(111.0 + 36842.0).unwrap(), 8.00013865114, 1e-12, "bootstrap");
    for now_ms in [222.0, 333.0, 444.0, 555.0] {
        fd.heartbeat(now_ms).unwrap();
    }
    assert_eq!((fd.samples(), fd.mean()), (4, 111.0));
    let ln_10 = LN_10;
    near(fd.phi(666.0).unwrap() * ln_10, 1.0, 0.01);
    near(fd.phi(3000.0).unwrap() * ln_10, 22.03, 0.01);
    // In log10 units, as in 2010.
    near(fd.phi(666.0).unwrap(), 0.4342, 1e-4);
    near(fd.phi(3000.0).unwrap(), 9.566, 1e-3);
}

#[test]
fn the_detector_keeps_the_promises_of_the_api() {
    let mut fd = detector(PhiOptions::default());
    assert_eq!(fd.phi(1e9), Ok(0.0));
    fd.heartbeat(1000.0).unwrap();
    assert_eq!((fd.phi(1e9), fd.samples(), fd.timeout_ms()), (Ok(0.0), 0, None));
    fd.heartbeat(1500.0).unwrap();
    // The floor acts in phi alone.
    assert_eq!((fd.mean(), fd.std_dev()), (500.0, 0.0));
    close(fd.phi(2000.0).unwrap(), std::f64::consts::LOG10_2, 1e-15, "at the mean");
    close(fd.phi(3000.0).unwrap(), normal_tail(10.0), 1e-15, "ten floors late");
    close(fd.timeout_ms().unwrap(), 500.0 + 100.0 * 5.6120012441748, 1e-12, "timeout");
    // Refused, unchanged.
    assert_eq!(fd.heartbeat(1499.0), Err(PhiError::TimeBackwards { now_ms: 1499.0, last_ms: 1500.0 }));
    assert_eq!(fd.phi(1499.0), Err(PhiError::TimeBackwards { now_ms: 1499.0, last_ms: 1500.0 }));
    assert!(matches!(fd.heartbeat(f64::NAN), Err(PhiError::TimeNotFinite { .. })));
    assert!(matches!(fd.is_available(f64::INFINITY), Err(PhiError::TimeNotFinite { .. })));
    assert_eq!((fd.samples(), fd.mean()), (1, 500.0));
    // An interval of nothing and one of an hour are samples.
    fd.heartbeat(1500.0).unwrap();
    fd.heartbeat(3_601_500.0).unwrap();
    assert_eq!(fd.samples(), 3);
    near(fd.mean(), 3_600_500.0 / 3.0, 1e-6);
    for options in [
        PhiOptions { threshold: 0.0, ..PhiOptions::default() },
        PhiOptions { threshold: f64::NAN, ..PhiOptions::default() },
        PhiOptions { window_size: 0, ..PhiOptions::default() },
        PhiOptions { window_size: WINDOW_MAX + 1, ..PhiOptions::default() },
        PhiOptions { min_std_dev_ms: -1.0, ..PhiOptions::default() },
        PhiOptions { acceptable_pause_ms: f64::INFINITY, ..PhiOptions::default() },
        PhiOptions { first_heartbeat_estimate_ms: Some(0.0), ..PhiOptions::default() },
    ] {
        let refused = PhiAccrualDetector::new(options.clone()).unwrap_err();
        assert!(refused.to_string().contains("must be"), "{options:?}: {refused}");
    }
}
