# The service in a small image: no shell, no package manager, not root.
#
#   docker build --tag crisis-relay .
#   docker run --env-file production.env --volume crisis-relay:/data --publish 8080:8080 crisis-relay

FROM rust:1.95-bookworm AS build
WORKDIR /build

# The dependencies first, with an empty crate around them: this layer is built again only when they change.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
RUN mkdir -p src benches/relay \
 && echo '//! Empty.' > src/lib.rs \
 && echo 'fn main() {}' > src/main.rs \
 && cp src/main.rs benches/relay/main.rs \
 && cargo build --release --locked \
 && rm -r src benches

COPY . .
# The copies may be older than the empty crate's build; cargo compares times.
RUN find src -name '*.rs' -exec touch {} + \
 && cargo build --release --locked \
 && mkdir /data

# Holds glibc, libgcc, CA certificates and time zones. Same Debian release as above, so the same glibc.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /build/target/release/crisis-relay /usr/local/bin/crisis-relay
COPY --from=build /build/LICENSE /usr/share/doc/crisis-relay/LICENSE
# A volume takes owner and mode from the folder it is first mounted on: 65532 is the image's user.
COPY --from=build --chown=65532:65532 /data /data

# What a container needs that a developer's machine does not. Secrets come at run time, never here.
ENV CRISIS_RELAY_MODE=production \
    HTTP_BIND=0.0.0.0:8080 \
    LOG_FORMAT=json \
    DATABASE_PATH=/data/crisis-relay.db \
    CRISIS_RELAY__KEYRING__DEVELOPMENT_KEY_PATH=/data/development-master.key

USER 65532:65532
# Not the volume: nothing that lies in there is taken for a configuration.
WORKDIR /
VOLUME /data
EXPOSE 8080
# The service then finishes what is under way (http.shutdown_grace, 20 s): grant it more than that,
# `docker stop --timeout 30`.
STOPSIGNAL SIGTERM
# Asks the service's own /livez.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["/usr/local/bin/crisis-relay", "health"]
ENTRYPOINT ["/usr/local/bin/crisis-relay"]
CMD ["serve"]
