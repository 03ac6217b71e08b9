"""Six grey frames of 64 x 64 px in AV1, made by libsvtav1: OpenCV's wheels open it, and have no decoder for it."""

import base64
import zlib

AV1_FILM = zlib.decompress(
    base64.b85decode(
        "c-nnaF>ljA6#krqv_wI&q99pOE4e6$O3=!&qAp#cvZN9W3?PJ%TBm2LR(-"
        "Xxua?TxmZd{k(uI+=QzfR3NM&K;2Owrv_yggc9g}OIeY*2|_uY5zy?gfz!1Tm^<R>8qN|4$~tqy6MN8Jv9Sub{7(jPc;M6E_v>3sBl!<w}lI?j)7"
        "HO)gJVfbnF$Gc7Y?qUV);rjdu-dxsA;4_Sc(=Nd!tujOo>%b<A)2H9;hE>Mx_T{P}W227NukS7Gg5WCdtY8BF?zXgJf@^Eq#{vfKJ-"
        "h(Q4|o`+v<i5-&2UA^KZ*Gg8swOWc9k`~?%_tE(4}W0c6P{qEq1b)<$t|VT-+Szzj1qi6KK0kB&6ruAQ6)jW53y1?JH-"
        "#Lx#!O^xYR}8hHLCTP$s}ATD-NpSddY1+Bxrv&#Zkax}sHU5|`r$}^{Gnr)Wv&9T_^lxx)Y;=s&pt(%BJK=v>Z2~#*nvazlyg}ihRebW7F8Pj5nM"
        ")K>VoyUjNBt>f;Y*05+_5%@*%Qkb6PZ){FN?Q1@0u^aDDN_}fvym_nNx(F8L)Yb<iM2Jws*d#|+Iy?yCUIGhwQ+Ma6;08$LdB0obFjyRe8^Ya&9s"
        "yS_0i~|V<(CNwE#<g-Wm7LL?|83(+}ztrF-I}-ip24p<&s70Pi7x0s"
    )
)
