# The part of nixpkgs' lib that flake.nix and the module use.
rec {
  genAttrs = names: make: builtins.listToAttrs (map (name: { inherit name; value = make name; }) names);
  licenses.asl20 = { spdxId = "Apache-2.0"; };
  optionals = condition: list: if condition then list else [ ];
  optionalAttrs = condition: set: if condition then set else { };
  boolToString = value: if value then "true" else "false";
  literalExpression = text: { inherit text; };
  escapeShellArgs = builtins.concatStringsSep " ";
  mkOption = option: option // { _type = "option"; };
  mkEnableOption = what: mkOption { type = types.bool; default = false; description = "Whether to enable ${what}."; };
  mkIf = condition: content: { _type = "if"; inherit condition content; };
  types = {
    bool = builtins.isBool;
    str = builtins.isString;
    path = value: builtins.isPath value || builtins.isString value;
    package = value: value ? outPath;
    anything = value: true;
    nullOr = type: value: value == null || type value;
    listOf = type: value: builtins.isList value && builtins.all type value;
    attrsOf = type: value: builtins.isAttrs value && builtins.all type (builtins.attrValues value);
  };
  # One module with options below services.ringtap, and values for them: what the module then sets.
  evalModule =
    module: arguments: values:
    let
      made = module (arguments // { inherit config; });
      declared = made.options.services.ringtap;
      unknown = removeAttrs values (builtins.attrNames declared);
      value =
        name: option:
        let
          given = values.${name} or option.default;
        in
        if option.type given then given else throw "services.ringtap.${name} has a value of another type";
      config.services.ringtap =
        if unknown == { } then builtins.mapAttrs value declared
        else throw "there is no services.ringtap.${builtins.head (builtins.attrNames unknown)}";
    in
    if made.config.condition then made.config.content else { };
}
