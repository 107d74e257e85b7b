//! `eagleray._native`: PyO3 glue and conversions.

mod template;
