# shellcheck shell=bash
# Images without a container engine, as archives that `ctr images import` takes. The same files
# make the same archive.

# image FILE NAME PROGRAM [ARGUMENT...]: of one program and nothing else.
image() {
    local file=$1 name=$2 program=$3 root entry
    shift 3
    root=$(mktemp -d)
    cp "$program" "$root/program"
    entry=$(printf ',"%s"' /program "$@")
    image_of "$file" "$name" "$root" "{\"Entrypoint\":[${entry#,}]}"
    rm -r "$root"
}

# image_of FILE NAME FOLDER CONFIG: of a folder, with what the image says about its container.
image_of() {
    local file=$1 name=$2 root=$3 config=$4 work layer
    work=$(mktemp -d)
    local stable=(--sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner)
    chmod 0755 "$root"
    tar "${stable[@]}" -C "$root" -cf "$work/layer.tar" .
    layer=$(sha256sum "$work/layer.tar" | cut -d ' ' -f 1)
    printf '{"architecture":"%s","os":"linux","config":%s,"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
        "$(go env GOARCH)" "$config" "$layer" >"$work/config.json"
    printf '[{"Config":"config.json","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$name" \
        >"$work/manifest.json"
    tar "${stable[@]}" -C "$work" -cf "$file.new" manifest.json config.json layer.tar
    mv "$file.new" "$file"
    rm -r "$work"
}

# libraries FILE: what it is linked with, the loader among it; nothing for a static one.
libraries() {
    ldd "$1" 2>/dev/null | sed -nE 's!^.*[[:space:]](/[^[:space:]]+) \(0x.*$!\1!p' || true
}

# with_libraries FILE ROOT PATH: puts a program or library into a folder, with all that it is
# linked with.
with_libraries() {
    local file library
    file=$(readlink -f -- "$1")
    install -D -m 0755 -- "$file" "$2$3"
    while read -r library; do
        [[ -e $2$library ]] || install -D -m 0755 -- "$library" "$2$library"
    done < <(libraries "$file")
}
