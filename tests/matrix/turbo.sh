#!/bin/sh
# A program by Go 1.17, of which no compiler can be had any more: turbo asks for a build's result at URL.
# turbo.sh TURBO URL, in an empty folder.
set -eu
mkdir -p packages/a
echo '{"name":"w","private":true,"workspaces":["packages/*"],"packageManager":"yarn@1.22.17"}' >package.json
echo '{"pipeline":{"build":{"outputs":["dist/**"]}}}' >turbo.json
echo '{"name":"a","version":"1.0.0","scripts":{"build":"true"}}' >packages/a/package.json
: >yarn.lock
git init --quiet .
git add --all
git -c user.email=a@localhost -c user.name=a commit --quiet --message=a
"$1" run build --api="$2" --token=t --team=t 2>&1
