//! Tails of the arrival models in log space, and their inverses.
//!
//! `erf` and the scaled complement `erfcx(x) = exp(x^2) erfc(x)` use the rational minimax approximations of W. J. Cody,
//! "Rational Chebyshev approximations for the error function", Math. Comp. 23 (1969), pp. 631-637, with the
//! coefficients of his routine CALERF (SPECFUN, Argonne, 1990). Their relative error is below 1e-15.

use core::f64::consts::{FRAC_1_SQRT_2, LN_2, LN_10, LOG10_E};

/// 1/sqrt(pi).
const FRAC_1_SQRT_PI: f64 = 0.564_189_583_547_756_3;
/// sqrt(pi/2).
const SQRT_FRAC_PI_2: f64 = 1.253_314_137_315_500_3;
/// 2 ln 10.
const TWO_LN_10: f64 = 2.0 * LN_10;
/// Where Cody's first range ends.
const SMALL: f64 = 0.46875;

const A: [f64; 5] = [
    1.857_777_061_846_031_5e-1,
    3.161_123_743_870_565_6,
    1.138_641_541_510_501_6e2,
    3.774_852_376_853_02e2,
    3.209_377_589_138_469_5e3,
];
const B: [f64; 5] = [
    1.0,
    2.360_129_095_234_412_1e1,
    2.440_246_379_344_441_7e2,
    1.282_616_526_077_372_3e3,
    2.844_236_833_439_171e3,
];
const C: [f64; 9] = [
    2.153_115_354_744_038_5e-8,
    5.641_884_969_886_701e-1,
    8.883_149_794_388_376,
    6.611_919_063_714_163e1,
    2.986_351_381_974_001e2,
    8.819_522_212_417_69e2,
    1.712_047_612_634_070_6e3,
    2.051_078_377_826_071_5e3,
    1.230_339_354_797_997_2e3,
];
const D: [f64; 9] = [
    1.0,
    1.574_492_611_070_983_5e1,
    1.176_939_508_913_125e2,
    5.371_811_018_620_099e2,
    1.621_389_574_566_690_2e3,
    3.290_799_235_733_46e3,
    4.362_619_090_143_247e3,
    3.439_367_674_143_721_6e3,
    1.230_339_354_803_749_4e3,
];
const P: [f64; 6] = [
    1.631_538_713_730_209_8e-2,
    3.053_266_349_612_323_4e-1,
    3.603_448_999_498_044_4e-1,
    1.257_817_261_112_292_5e-1,
    1.608_378_514_874_228e-2,
    6.587_491_615_298_378e-4,
];
const Q: [f64; 6] = [
    1.0,
    2.568_520_192_289_822,
    1.872_952_849_923_467_3,
    5.279_051_029_514_284e-1,
    6.051_834_131_244_132e-2,
    2.335_204_976_268_691_8e-3,
];

/// Horner, highest power first.
fn poly(coefficients: &[f64], x: f64) -> f64 {
    coefficients.iter().fold(0.0, |sum, c| sum * x + c)
}

/// erf for |x| <= 0.46875.
fn erf_small(x: f64) -> f64 {
    let square = x * x;
    x * poly(&A, square) / poly(&B, square)
}

/// exp(x^2) erfc(x) for x > 0.46875.
fn erfcx(x: f64) -> f64 {
    if x <= 4.0 {
        return poly(&C, x) / poly(&D, x);
    }
    let inverse = 1.0 / (x * x);
    (FRAC_1_SQRT_PI - inverse * poly(&P, inverse) / poly(&Q, inverse)) / x
}

/// phi of the standard normal tail at `y` standard deviations above the mean: `-log10(erfc(y / sqrt 2) / 2)`
/// (Hayashibara et al. 2004, eq. 2-4), computed without leaving log space.
///
/// Relative error below 1e-12 for -5 <= y <= 1000, finite for every finite `y`: where `y^2` itself overflows (y > 1e154)
/// the value stays at `f64::MAX`. NaN counts as minus infinity, the state in which nothing is late.
#[must_use]
pub fn normal_tail(y: f64) -> f64 {
    if y.is_nan() {
        return 0.0;
    }
    let x = y * FRAC_1_SQRT_2;
    if x.abs() <= SMALL {
        return (LN_2 - (-erf_small(x)).ln_1p()) * LOG10_E;
    }
    if x < 0.0 {
        let missing = 0.5 * erfcx(-x) * (-0.5 * y * y).exp();
        return -((-missing).ln_1p()) * LOG10_E + 0.0;
    }
    let square = y * (y / TWO_LN_10);
    if square < f64::MAX { square - (0.5 * erfcx(x)).log10() } else { f64::MAX }
}

/// phi of the logistic approximation of Akka and Pekko (`PhiAccrualFailureDetector.phi`), `y` as in [`normal_tail`]:
/// `log10(1 + exp(y (1.5976 + 0.070566 y^2)))`. It is the same function as Pekko's for either side of the mean, but does
/// not overflow at y = 21.6. Its tail grows with y^3, so it is no approximation of the normal tail above phi = 4.
#[must_use]
pub fn logistic_tail(y: f64) -> f64 {
    if y.is_nan() {
        return 0.0;
    }
    let exponent = y * (LOGISTIC_LINEAR + LOGISTIC_CUBIC * y * y);
    let phi = (exponent.max(0.0) + (-exponent.abs()).exp().ln_1p()) * LOG10_E;
    phi.min(f64::MAX)
}

const LOGISTIC_LINEAR: f64 = 1.5976;
const LOGISTIC_CUBIC: f64 = 0.070566;

/// The number of standard deviations at which [`normal_tail`] reaches `phi`: its inverse, to about 1e-15 relative.
/// A phi of 0 or below (or NaN) gives minus infinity: every silence has reached it.
#[must_use]
pub fn z(phi: f64) -> f64 {
    if phi.is_nan() || phi <= 0.0 {
        return f64::NEG_INFINITY;
    }
    let half = LN_2 * LOG10_E;
    if phi < half {
        // The tail below the mean mirrors the one above it.
        let head = -(-phi * LN_10).exp_m1();
        return -upper_z(-head.log10());
    }
    upper_z(phi)
}

/// Newton from the right on a convex, increasing function: it never overshoots, so it ends when it stops falling.
fn upper_z(phi: f64) -> f64 {
    let mut y =
        if phi < 1e300 { (phi * TWO_LN_10).sqrt() } else { phi.min(f64::MAX).sqrt() * TWO_LN_10.sqrt() };
    for _ in 0..64 {
        let x = y * FRAC_1_SQRT_2;
        let scaled = if x <= SMALL { (x * x).exp() * (1.0 - erf_small(x)) } else { erfcx(x) };
        let slope = LOG10_E / (SQRT_FRAC_PI_2 * scaled);
        let next = (y - (normal_tail(y) - phi) / slope).max(0.0);
        if next.is_nan() || next >= y {
            break;
        }
        let done = y - next <= 1e-16 * y;
        y = next;
        if done {
            break;
        }
    }
    y
}

/// The number of standard deviations at which [`logistic_tail`] reaches `phi`; as [`z`] for phi of 0 or below.
#[must_use]
pub fn logistic_z(phi: f64) -> f64 {
    if phi.is_nan() || phi <= 0.0 {
        return f64::NEG_INFINITY;
    }
    let scaled = phi.min(f64::MAX / LN_10) * LN_10;
    // ln(exp(scaled) - 1), without overflow above and without cancellation below.
    let exponent = if scaled > LN_2 { scaled + (-(-scaled).exp()).ln_1p() } else { scaled.exp_m1().ln() };
    // Real root of y^3 + p y = q with p > 0 in its hyperbolic form.
    let p = LOGISTIC_LINEAR / LOGISTIC_CUBIC;
    let q = exponent / LOGISTIC_CUBIC;
    let mut y = 2.0 * (p / 3.0).sqrt() * ((1.5 * (q / p) * (3.0 / p).sqrt()).asinh() / 3.0).sinh();
    for _ in 0..2 {
        let error = y * (LOGISTIC_LINEAR + LOGISTIC_CUBIC * y * y) - exponent;
        let step = error / (LOGISTIC_LINEAR + 3.0 * LOGISTIC_CUBIC * y * y);
        if step.is_finite() {
            y -= step;
        }
    }
    y
}
