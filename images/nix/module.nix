# services.ringtap of NixOS.
flake:
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.ringtap;
  # JSON is YAML.
  file = pkgs.writeText "ringtap.yaml" (builtins.toJSON cfg.settings);
in
{
  options.services.ringtap = {
    enable = lib.mkEnableOption "the capture of this machine's HTTP transactions";
    package = lib.mkOption {
      type = lib.types.package;
      default = flake.packages.${pkgs.system}.ringtap;
      defaultText = lib.literalExpression "ringtap.packages.\${system}.ringtap";
      description = "The agent.";
    };
    settings = lib.mkOption {
      type = lib.types.nullOr (lib.types.attrsOf lib.types.anything);
      default = null;
      description = ''
        What the configuration file says, as in docs/configuration.md. Left out: everything that programs of this machine
        request is captured, printed to the journal, and kept below /var/lib/ringtap. It lies in the store, which everybody
        can read: name secrets by their environment variables, and set those in `environmentFile`.
      '';
    };
    listen = lib.mkOption {
      type = lib.types.str;
      default = "127.0.0.1:10001";
      description = "Where metrics are served, and /devtools; `off`: nowhere.";
    };
    devtools = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Whether /devtools is served, which shows everything that is captured.";
    };
    environmentFile = lib.mkOption {
      type = lib.types.nullOr lib.types.path;
      default = null;
      description = "File of variables, such as secrets, for the agent.";
    };
    extraArgs = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      description = "More flags of `ringtap run`.";
    };
  };

  config = lib.mkIf cfg.enable {
    systemd.services.ringtap = {
      description = "Ringtap, capture of HTTP transactions";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [ "network-online.target" ];
      environment = {
        DATA_DIR = "/var/lib/ringtap";
        LOG_ENCODING = "json";
        HTTPD_LISTEN = cfg.listen;
        ENABLE_DEV_TOOLS = lib.boolToString cfg.devtools;
      };
      serviceConfig = {
        Type = "exec";
        ExecStart = lib.escapeShellArgs (
          [
            "${cfg.package}/bin/ringtap"
            "run"
          ]
          ++ lib.optionals (cfg.settings != null) [
            "--config"
            "${file}"
          ]
          ++ cfg.extraArgs
        );
        Restart = "on-failure";
        RestartSec = 5;
        TimeoutStopSec = 15;
        StateDirectory = "ringtap";
        StateDirectoryMode = "0700";
        UMask = "0077";
        LimitMEMLOCK = "infinity";
        LimitNOFILE = 65536;
        # As in images/systemd/ringtap.service, where it says why.
        CapabilityBoundingSet = "CAP_BPF CAP_PERFMON CAP_SYS_PTRACE CAP_DAC_READ_SEARCH CAP_SETPCAP";
        NoNewPrivileges = true;
        ProtectSystem = "strict";
        ProtectHome = "read-only";
        PrivateDevices = true;
        ProtectClock = true;
        ProtectControlGroups = true;
        ProtectKernelLogs = true;
        ProtectKernelModules = true;
        ProtectKernelTunables = true;
        ProtectHostname = true;
        RestrictNamespaces = true;
        RestrictRealtime = true;
        RestrictSUIDSGID = true;
        LockPersonality = true;
        MemoryDenyWriteExecute = true;
        SystemCallArchitectures = "native";
        RestrictAddressFamilies = "AF_UNIX AF_INET AF_INET6 AF_NETLINK";
        SystemCallFilter = "~@clock @cpu-emulation @module @mount @obsolete @raw-io @reboot @swap";
        SystemCallErrorNumber = "EPERM";
      }
      // lib.optionalAttrs (cfg.environmentFile != null) { EnvironmentFile = cfg.environmentFile; };
    };
  };
}
