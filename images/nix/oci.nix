# The image, of the folder that images/oci/Containerfile takes as well.
{
  src,
  ringtap,
  cacert,
  dockerTools,
  runCommand,
}:
let
  root = runCommand "ringtap-root" { } ''
    bash ${src}/images/oci/root ${ringtap}/bin/ringtap ${cacert}/etc/ssl/certs/ca-bundle.crt root \
      ${ringtap}/share/doc/ringtap/sbom.cdx.json
    mv root $out
  '';
in
dockerTools.buildImage {
  name = "ringtap";
  tag = ringtap.version;
  copyToRoot = root;
  # The store has taken every right to write from the folders.
  extraCommands = "find . -type d -exec chmod 0755 {} +; chmod 0700 var/lib/ringtap";
  config = {
    Entrypoint = [ "/bin/ringtap" ];
    Cmd = [ "run" ];
    Env = [
      "HTTPD_LISTEN=0.0.0.0:10001"
      "DATA_DIR=/var/lib/ringtap"
      "LOG_ENCODING=json"
    ];
    ExposedPorts."10001/tcp" = { };
    Volumes."/var/lib/ringtap" = { };
    Healthcheck = {
      Test = [
        "CMD"
        "/bin/ringtap"
        "status"
      ];
      Interval = 30000000000;
      Timeout = 10000000000;
      StartPeriod = 30000000000;
    };
    Labels = {
      "org.opencontainers.image.title" = "ringtap";
      "org.opencontainers.image.description" = ringtap.meta.description;
      "org.opencontainers.image.licenses" = "Apache-2.0";
      "org.opencontainers.image.version" = ringtap.version;
    };
  };
}
