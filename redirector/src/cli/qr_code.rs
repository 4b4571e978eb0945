//! A link for a camera.

use qrcode::{QrCode, render::unicode::Dense1x2};

/// A QR code of half blocks, dark on light as cameras want it on a dark terminal. `None`: the text is too long.
pub fn qr_code(text: &str) -> Option<String> {
    let code = QrCode::new(text.as_bytes()).ok()?;
    Some(
        code.render::<Dense1x2>()
            .dark_color(Dense1x2::Light)
            .light_color(Dense1x2::Dark)
            .quiet_zone(true)
            .build(),
    )
}

#[cfg(test)]
mod tests {
    use super::qr_code;

    #[test]
    fn a_link_fits_on_a_screen() {
        let code = qr_code("https://abcdefghijklmnopqrstuvwxyz.preview.example.com/").unwrap();
        assert!(code.lines().count() <= 24 && code.lines().all(|line| line.chars().count() <= 45), "{code}");
        assert_eq!(qr_code(&"x".repeat(5000)), None);
    }
}
