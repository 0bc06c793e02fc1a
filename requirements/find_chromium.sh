#!/bin/sh
# Is there a Chromium? Else root on Debian gets it, and all others are told how.
for name in chromium chromium-browser google-chrome google-chrome-stable; do
    command -v "$name" >/dev/null && exit 0
done
if [ "$(id -u)" = 0 ] && grep -qs '^ID=debian$' /etc/os-release; then
    echo 'Installing Chromium from Debian, for the tests of the routing explorer.'
    export DEBIAN_FRONTEND=noninteractive
    timeout -k 10 300 sh -c 'apt-get -qq update
        apt-get -qq install -y --no-install-recommends chromium' </dev/null >/dev/null && exit 0
fi
echo 'No Chromium: tests of the routing explorer will be skipped (apt-get install chromium).'
