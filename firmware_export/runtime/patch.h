/* Copies of image pieces. */
#ifndef NN_PATCH_H
#define NN_PATCH_H

#include "window.h"

/* rows x columns taps of an image int8 [window->input_h, window->input_w, window->channels], the first at (y, x), the others
 * window->dilation_h and dilation_w apart; fill where they do not lie on it. to: int8 [rows, columns, channels].
 */
void nn_copy_patch(const nn_window *window, const int8_t *image, int32_t y, int32_t x, uint32_t rows, uint32_t columns,
                   int8_t fill, int8_t *to);

#endif
