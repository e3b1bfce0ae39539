# Two images, each one static program and little else:
#   docker build --target agent -t spantap-agent .
#   docker build --target forwarder -t spantap .
# No network but the package registries' is needed; docs/containers.md tells how to do without an image registry too.
# Written for BuildKit and the classic builder alike: no `RUN --mount`, no TARGETARCH taken for granted.

FROM rust:1.95-bookworm AS tools
RUN command -v clang && command -v musl-gcc && [ -e /usr/include/bpf/bpf_helpers.h ] \
    || { apt-get update && apt-get install --yes --no-install-recommends clang libbpf-dev musl-tools \
    && rm -rf /var/lib/apt/lists/*; }
ARG TARGETARCH
RUN case "${TARGETARCH:-$(dpkg --print-architecture)}" in \
        amd64) echo x86_64-unknown-linux-musl ;; \
        arm64) echo aarch64-unknown-linux-musl ;; \
        *) echo "no build for ${TARGETARCH}" >&2; exit 1 ;; \
    esac >/target && { [ -d "$(rustc --print target-libdir --target "$(cat /target)")" ] || rustup target add "$(cat /target)"; }
WORKDIR /build

# The workspace with empty sources: as long as no manifest changes, this comes out the same.
FROM tools AS skeleton
COPY . .
RUN for crate in $(dirname */Cargo.toml); do \
        mkdir -p /skeleton/$crate/src /skeleton/$crate/tests && cd /skeleton/$crate && cp /build/$crate/Cargo.toml .; \
        : >src/lib.rs; echo 'fn main() {}' >src/main.rs; \
        if grep -q build-dependencies Cargo.toml; then echo 'fn main() {}' >build.rs; fi; \
        for test in $(sed -n '/^\[\[test/,/^name/s/^name = "\(.*\)"/\1/p' Cargo.toml); do : >tests/$test.rs; done; \
        cd /build; \
    done && cp Cargo.toml Cargo.lock /skeleton/

# So the layer with all dependencies compiled stays while sources change.
FROM tools AS dependencies
COPY --from=skeleton /skeleton .
RUN cargo build --release --locked --target "$(cat /target)" -p spantap -p spantap-agent \
    && find . -path ./target -prune -o -name '*.rs' -exec rm {} +

FROM dependencies AS build
COPY . .
# A member of the workspace that is not built, but has to be whole.
COPY --from=skeleton /skeleton/tests tests
# Cargo goes by times of change, and these files may be older than the empty ones. The folder of the ingest socket is made
# here because an image from scratch has no program that could.
RUN find . -path ./target -prune -o -type f -exec touch {} + \
    && cargo build --release --locked --target "$(cat /target)" -p spantap -p spantap-agent \
    && mkdir -p /out/run/spantap \
    && cp "target/$(cat /target)/release/spantap" "target/$(cat /target)/release/spantap-agent" /out/ \
    && strip /out/spantap /out/spantap-agent && ls -l /out

# Privileged by the capabilities that it is run with (docs/privileges.md), hence root.
FROM scratch AS agent
LABEL org.opencontainers.image.title="spantap-agent" \
      org.opencontainers.image.description="Spantap's privileged half: watches selected processes with eBPF, streams raw events to the forwarder" \
      org.opencontainers.image.source="https://github.com/spantap/spantap" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/spantap-agent /spantap-agent
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["/spantap-agent", "health"]
ENTRYPOINT ["/spantap-agent"]

# No privilege at all. 65532 is in no /etc/passwd: nobody else's.
FROM scratch AS forwarder
LABEL org.opencontainers.image.title="spantap" \
      org.opencontainers.image.description="Spantap's forwarder: turns the agent's events into OpenTelemetry traces and metrics" \
      org.opencontainers.image.source="https://github.com/spantap/spantap" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# A new volume takes over owner and mode of the folder that it is mounted on.
COPY --from=build --chown=65532:65532 /out/run/spantap /run/spantap
COPY --from=build /out/spantap /spantap
USER 65532:65532
EXPOSE 9465
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["/spantap", "health"]
ENTRYPOINT ["/spantap"]
CMD ["forward"]
