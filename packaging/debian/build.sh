#!/usr/bin/env bash
# Makes the Debian package of programs that are built already, and prints its path.
#   packaging/debian/build.sh FOLDER_OF_PROGRAMS OUTPUT_FOLDER [VERSION]
# dpkg-deb and these few files do it alone: no tool to install, and tests package the programs they have just built.
# LEVEL is how hard xz tries, 6 if not set.
# The same programs, version and SOURCE_DATE_EPOCH give the same package, byte for byte. Exit 69: a tool is missing.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
programs=${1:?usage: build.sh FOLDER_OF_PROGRAMS OUTPUT_FOLDER [VERSION]}
output=${2:?usage: build.sh FOLDER_OF_PROGRAMS OUTPUT_FOLDER [VERSION]}
version=${3:-$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$root/Cargo.toml")}
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$("$root/tools/source-date.sh")}

say() { echo "debian: $*" >&2; }
for tool in dpkg-deb readelf strip gzip md5sum; do
    command -v "$tool" >/dev/null || { say "$tool is missing (Debian: dpkg, binutils)"; exit 69; }
done
for program in spantap spantap-agent; do
    [[ -x $programs/$program ]] || { say "$programs/$program is not there: build it first"; exit 69; }
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$work/tree
umask 022
put() { install -D -m "$1" "$2" "$tree/$3"; } # mode, file, place
put 755 "$programs/spantap" usr/bin/spantap
put 755 "$programs/spantap-agent" usr/bin/spantap-agent
for program in "$tree"/usr/bin/*; do
    # Not `readelf | grep -q`: that ends at the first hit, and readelf sometimes with it, by SIGPIPE.
    if [[ $(readelf -SW "$program") == *' .symtab '* ]]; then strip --strip-unneeded "$program"; fi
done
put 644 "$root/packaging/systemd/spantap-agent.service" usr/lib/systemd/system/spantap-agent.service
put 644 "$root/packaging/systemd/spantap-forwarder.service" usr/lib/systemd/system/spantap-forwarder.service
put 644 "$root/packaging/etc/spantap.yml" etc/spantap/spantap.yml
# Secrets will stand here. The service manager reads it, so root alone has to.
put 600 "$root/packaging/etc/default-spantap" etc/default/spantap
put 644 "$here/copyright" usr/share/doc/spantap/copyright
put 644 "$here/lintian-overrides" usr/share/lintian/overrides/spantap
put 644 "$root/docs/install.md" usr/share/doc/spantap/install.md
for drop_in in tls propagation; do
    put 644 "$root/packaging/systemd/spantap-agent.service.d/$drop_in.conf" "usr/share/doc/spantap/examples/$drop_in.conf"
done
"$root/tools/third-party.sh" | gzip -9n >"$tree/usr/share/doc/spantap/THIRD-PARTY.gz"
date=$(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")
gzip -9n >"$tree/usr/share/doc/spantap/changelog.gz" <<CHANGELOG
spantap ($version) unstable; urgency=medium

  * Built from the sources of this version.

 -- The Spantap authors <spantap@users.noreply.github.com>  $date
CHANGELOG

# Static programs (musl) need nothing; others the libraries of the system that they were linked on.
depends=passwd
libraries=$(readelf -d "$tree"/usr/bin/* | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort -u)
for library in $libraries; do
    case $library in
        libc.so.6) depends+=", libc6 (>= $(ldd --version | sed -n '1s/.* //p'))" ;;
        libgcc_s.so.1) depends+=", libgcc-s1" ;;
        libm.so.6 | ld-linux-*) ;;
        *) say "no package is known for $library"; exit 69 ;;
    esac
done
mkdir "$tree/DEBIAN"
size=$(du -k --apparent-size --exclude=DEBIAN -s "$tree" | cut -f1)
sed -e "s/@VERSION@/$version/; s/@DEPENDS@/$depends/; s/@SIZE@/$size/" "$here/control" >"$tree/DEBIAN/control"
for script in postinst prerm postrm; do install -m 755 "$here/$script" "$tree/DEBIAN/$script"; done
printf '/etc/spantap/spantap.yml\n/etc/default/spantap\n' >"$tree/DEBIAN/conffiles"
(cd "$tree" && find usr -type f | LC_ALL=C sort | xargs md5sum) >"$tree/DEBIAN/md5sums"
find "$tree" -print0 | xargs -0 touch --no-dereference --date="@$SOURCE_DATE_EPOCH"

mkdir -p "$output"
package=$output/spantap_${version}_amd64.deb
dpkg-deb --root-owner-group --threads-max=1 -Zxz -z"${LEVEL:-6}" --build "$tree" "$package" >&2
echo "$package"
