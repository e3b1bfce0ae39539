//! Names of query parameters that commonly carry secrets.
//!
//! The signatures of cloud storage are those that the semantic conventions name for `url.query`; the others are what OAuth 2.0
//! (RFC 6749, RFC 6750), OpenID Connect, SAML, sessions, one-time codes, payments and common APIs use.

/// Redacted unless `attributes.sensitive_query_params.remove` says otherwise; matched without regard to case.
#[rustfmt::skip]
pub(crate) const DEFAULT_PARAMETERS: &[&str] = &[
    "sig", "Signature", "AWSAccessKeyId", "SecurityToken", "X-Amz-Signature", "X-Amz-Credential", "X-Amz-Security-Token",
    "X-Goog-Signature", "X-Goog-Credential", "GoogleAccessId",
    "access_token", "auth", "auth_token", "authorization", "bearer", "client_assertion", "client_secret", "code_verifier", "id_token",
    "jwt", "oauth_token", "oauth_verifier", "refresh_token", "token", "assertion", "SAMLRequest", "SAMLResponse",
    "access_key", "api_key", "api-key", "apikey", "key", "license_key", "private_key", "secret", "secret_key", "x-api-key",
    "credential", "credentials", "pass", "passphrase", "passwd", "password", "pin", "pwd",
    "session", "session_id", "sessionid", "sid", "csrf_token", "xsrf_token", "invite_token", "reset_token", "verify_token",
    "mfa_code", "otp", "totp", "verification_code",
    "card", "card_number", "cc", "cvc", "cvv", "iban", "pan", "ssn", "tax_id",
];
