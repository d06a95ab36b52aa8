# shellcheck shell=bash
# What of Istio is built and packed for scripts/witness. Sourced by scripts/cluster-tools, after
# archive.sh.

# extras_istio FOLDER: its charts, with which it is installed as its users install it, and images
# of the programs.
extras_istio() {
    local module version
    module=$(cd conformance/tools/istio && go list -m -f '{{.Dir}}' istio.io/istio)
    version=$(version_istio)
    cp -r --no-preserve=mode "$module/manifests/charts" "$1/"
    istio_pilot "$1" "sluice.test/istio/pilot:$version"
    istio_agent "$1" "sluice.test/istio/install-cni:$version"
}

# version_istio: its module has no version that people know: the release that it is on the way to,
# and the commit.
version_istio() {
    local module
    module=$(cd conformance/tools/istio && go list -m -f '{{.Dir}}' istio.io/istio)
    printf '%s-dev.%s\n' "$(<"$module/VERSION")" "${module##*-}"
}

# istio_pilot FOLDER NAME: an image as Istio's chart wants it.
istio_pilot() {
    local root
    root=$(mktemp -d)
    install -D -m 0755 "$1/pilot-discovery" "$root/usr/local/bin/pilot-discovery"
    mkdir -m 1777 "$root/tmp"
    image_of "$1/pilot.tar" "$2" "$root" \
        '{"Entrypoint":["/usr/local/bin/pilot-discovery"],"User":"1337:1337"}'
    rm -r "$root"
}

# istio_agent FOLDER NAME: the same, of the agent with its plugin.
istio_agent() {
    local root
    root=$(mktemp -d)
    install -D -m 0755 "$1/install-cni" "$root/usr/local/bin/install-cni"
    install -D -m 0755 "$1/istio-cni" "$root/opt/cni/bin/istio-cni"
    istio_executes "$root"
    image_of "$1/install-cni.tar" "$2" "$root" \
        '{"Env":["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/opt/cni/bin"],"WorkingDir":"/opt/cni/bin"}'
    rm -r "$root"
}

# istio_executes ROOT: what its agent executes, of this system: both kinds of iptables with what
# they load, ipset, nft, and nsenter.
istio_executes() {
    local root=$1 kind family verb extensions extension
    for kind in nft legacy; do
        with_libraries "$(command -v "xtables-$kind-multi")" "$root" "/usr/sbin/xtables-$kind-multi"
        for family in iptables ip6tables; do
            for verb in '' -save -restore; do
                ln -s "xtables-$kind-multi" "$root/usr/sbin/$family-$kind$verb"
            done
        done
    done
    for family in iptables ip6tables; do
        for verb in '' -save -restore; do
            ln -s xtables-nft-multi "$root/usr/sbin/$family$verb"
        done
    done
    extensions=$(dirname -- "$(find /usr/lib -name libxt_mark.so -path '*/xtables/*' -print -quit)")
    for extension in "$extensions"/*.so; do
        with_libraries "$extension" "$root" "$extension"
    done
    with_libraries "$(command -v ipset)" "$root" /usr/sbin/ipset
    with_libraries "$(command -v nft)" "$root" /usr/sbin/nft
    with_libraries "$(command -v nsenter)" "$root" /usr/bin/nsenter
    mkdir -p "$root"/{etc,run,var}
    mkdir -m 1777 "$root/tmp"
    ln -s /run "$root/var/run"
    # Protocols by name.
    cp /etc/protocols "$root/etc/protocols" 2>/dev/null || true
    printf 'root:x:0:0:root:/root:/\n' >"$root/etc/passwd"
}
