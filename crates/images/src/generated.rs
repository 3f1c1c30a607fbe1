//! The mark of generated images, as stock agencies, search engines and social networks read it.

use std::sync::atomic::{AtomicBool, Ordering};

/// The keyword that the XMP specification, part 3, gives the packet in a PNG file.
pub(crate) const KEYWORD: &str = "XML:com.adobe.xmp";

/// An XMP packet with IPTC's digital source type of what a trained model has generated.
pub(crate) const PACKET: &str = concat!(
    "<?xpacket begin=\"\u{feff}\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?>\n",
    r#"<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/">
   <Iptc4xmpExt:DigitalSourceType>http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia</Iptc4xmpExt:DigitalSourceType>
   <xmp:CreatorTool>attndreambooth "#,
    env!("CARGO_PKG_VERSION"),
    r#"</xmp:CreatorTool>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"#
);

static MARKED: AtomicBool = AtomicBool::new(true);

/// Whether generated images are marked as such from now on, in the whole process; they are if this is never called.
pub fn mark_generated(marked: bool) {
    MARKED.store(marked, Ordering::Relaxed);
}

pub(crate) fn marked() -> bool {
    MARKED.load(Ordering::Relaxed)
}
